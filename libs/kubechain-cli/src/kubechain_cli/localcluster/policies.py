"""Installing the admission policies of answers, and waiting until the API server asks them.

An API server takes a policy at once and asks it about a second later, and says nowhere when. So we look: an answer
that no policy would take, and one that the policies complete, both as dry runs. They go in beside the CRDs, and nothing
but the end of ``up`` waits for them: until then nobody is there to answer anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubechain_cli.localcluster.cluster_api import APPLY, apply, local_api, run_kubectl, to_list, try_kubectl
from kubechain_cli.localcluster.errors import ClusterApiError
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.tokens import Identity

if TYPE_CHECKING:
    import aiohttp

EFFECTIVE_TIMEOUT = 30.0
_LOOK_EVERY = 0.1
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_PLURALS = {
    "ClusterRole": "clusterroles",
    "MutatingAdmissionPolicy": "mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}

Probe = Callable[[dict[str, Any]], Awaitable[tuple[bool, str]]]
"""Whether a dry run of creating this object succeeds, and the API server's answer."""


def load_policies() -> list[dict[str, Any]]:
    """The policies and the role of those who answer. The import takes a while: call it in a thread."""
    from kubechain_common.policies import build_policies

    return [obj for objects in build_policies().values() for obj in objects]


async def apply_policies(server: str, pki: Pki, identity: Identity, policies: list[dict[str, Any]]) -> None:
    """Hand the policies to the local API server. Raises ClusterApiError."""
    async with local_api(server, pki, identity) as session:
        for policy in policies:
            await apply(session, path_of(policy), policy)


async def await_policies(server: str, pki: Pki, identity: Identity, policies: list[dict[str, Any]]) -> None:
    """Return once the local API server asks the policies. Raises ClusterApiError."""
    async with local_api(server, pki, identity) as session:

        async def probe(call: dict[str, Any]) -> tuple[bool, str]:
            return await _dry_run(session, call)

        await wait_effective(probe, kinds_of(policies))


async def _dry_run(session: aiohttp.ClientSession, call: dict[str, Any]) -> tuple[bool, str]:
    path = f"/apis/{call['apiVersion']}/namespaces/default/taskruntoolcalls"
    async with session.post(path, params={"dryRun": "All"}, json=call) as response:
        return response.status < 300, await response.text()


async def install_policies_with_kubectl(kubectl: Path, kubeconfig: Path, policies: list[dict[str, Any]]) -> None:
    """Apply what the user's cluster serves of them, and wait until it is asked. Raises ClusterApiError.

    Only new clusters know mutating policies: without one, whoever answers with kubectl has to say who it is.
    """
    good, served = await try_kubectl(kubectl, kubeconfig, ("get", "--raw", _ADMISSION))
    if not good:
        raise ClusterApiError(f"The cluster does not tell which admission policies it serves: {served}")
    known = {resource["kind"] for resource in json.loads(served)["resources"]}
    fit = [policy for policy in policies if policy["kind"] in known or policy["kind"] == "ClusterRole"]
    await run_kubectl(kubectl, kubeconfig, APPLY, to_list(fit))

    async def probe(call: dict[str, Any]) -> tuple[bool, str]:
        create = ("create", "--namespace=default", "--dry-run=server", "-o", "json", "-f", "-")
        return await try_kubectl(kubectl, kubeconfig, create, json.dumps(call))

    await wait_effective(probe, kinds_of(fit))


async def wait_effective(probe: Probe, kinds: set[str]) -> None:
    """Probe until each policy of these kinds shows its effect. Raises ClusterApiError when one never does."""
    waiting = kinds & {"ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"}
    answer = ""
    try:
        async with asyncio.timeout(EFFECTIVE_TIMEOUT):
            while True:
                if "ValidatingAdmissionPolicy" in waiting:
                    # Nobody may leave the name empty, not even those who may do everything.
                    taken, answer = await probe(build_probe({"approved": True, "by": ""}))
                    if not taken and "kubechain-answers" in answer:
                        waiting.discard("ValidatingAdmissionPolicy")
                if "MutatingAdmissionPolicy" in waiting:
                    taken, answer = await probe(build_probe({"approved": True}))
                    if taken and json.loads(answer)["spec"]["decision"].get("by"):
                        waiting.discard("MutatingAdmissionPolicy")
                if not waiting:
                    return
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError as error:
        raise ClusterApiError(
            f"The API server does not heed {' and '.join(sorted(waiting))} of KubeChain after"
            f" {EFFECTIVE_TIMEOUT:.0f} s. It last said: {answer[:500]}"
        ) from error


def build_probe(decision: dict[str, Any]) -> dict[str, Any]:
    """A call with this decision, which is never stored."""
    return {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": "TaskRunToolCall",
        "metadata": {"name": "kubechain-policy-probe"},
        "spec": {
            "toolCallId": "probe",
            "taskRunRef": {"name": "probe"},
            "toolRef": {"name": "probe"},
            "arguments": "{}",
            "decision": decision,
        },
    }


def kinds_of(policies: list[dict[str, Any]]) -> set[str]:
    return {policy["kind"] for policy in policies}


def path_of(obj: dict[str, Any]) -> str:
    """Where the API server keeps this object."""
    return f"/apis/{obj['apiVersion']}/{_PLURALS[obj['kind']]}/{obj['metadata']['name']}"
