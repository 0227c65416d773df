from __future__ import annotations

import pytest

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.errors import InvalidError
from kubechain_common.kube.paths import core_path, is_path_segment, lease_path, resource_path

ROOT = "/apis/kubechain.humanlayer.dev/v1alpha1"


def test_paths_of_a_kind() -> None:
    assert resource_path(Task) == f"{ROOT}/tasks"
    assert resource_path(Task, "ns") == f"{ROOT}/namespaces/ns/tasks"
    assert resource_path(Task, "ns", "a.b", "status") == f"{ROOT}/namespaces/ns/tasks/a.b/status"
    assert core_path("secrets", "ns", "s") == "/api/v1/namespaces/ns/secrets/s"
    assert lease_path("ns", "l") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../configmaps/x", "a%2fb", "a,metadata.namespace=b"])
def test_a_name_cannot_leave_its_place_in_the_path(name: str) -> None:
    assert not is_path_segment(name)
    with pytest.raises(InvalidError, match="not a valid Kubernetes name"):
        core_path("secrets", "ns", name)


def test_odd_characters_are_quoted() -> None:
    assert core_path("secrets", "ns", "a b?c#d") == "/api/v1/namespaces/ns/secrets/a%20b%3Fc%23d"
