"""``python -m tests.chaos --kills 1000 --tasks 3000``: rounds of all scenarios until both numbers are reached.

Every round's figures are appended to ``docs/reliability.json`` and the report is written anew, so a sweep may be
stopped at any time; ``--add`` goes on from what is there.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import uvloop
from tests.chaos.cluster import running_cluster
from tests.chaos.load import IN_FLIGHT
from tests.chaos.report import Report, summary
from tests.chaos.round import ROOT, run_round
from tests.chaos.scenario import BY_NAME, ORDER

from kubechain_common.kube.client import KubeClient
from kubechain_common.telemetry.logging import configure_logging


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="processes to be killed over all rounds")
    parser.add_argument("--tasks", type=int, default=3000, help="Tasks to be run over all rounds")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="begin no round after that; too few by then is a failure"
    )
    parser.add_argument("--seed", type=int, help="of orders and deeds; drawn and printed if not given")
    parser.add_argument("--scenario", choices=sorted(BY_NAME), help="this one only")
    parser.add_argument("--seconds", type=float, help="length of a round, for trying something out")
    parser.add_argument("--keep-logs", action="store_true", help="keep the logs though nothing was wrong")
    parser.add_argument("--add", action="store_true", help="add to the rounds in --out instead of beginning anew")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where reliability.json and .md go")
    return parser


async def sweep(options: argparse.Namespace, directory: Path) -> Report:
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    report = Report(options.out, keep=options.add)
    print(f"seed {seed}, logs in {directory}", flush=True)
    end = time.monotonic() + options.minutes * 60
    with running_cluster(directory / "state") as cluster:
        os.environ["KUBECONFIG"] = str(cluster.layout.kubeconfig)
        async with KubeClient.connect("kubechain-chaos") as kube:
            for number, name in enumerate(cycle([options.scenario] if options.scenario else ORDER)):
                if report.reached(options.kills, options.tasks) or time.monotonic() > end:
                    break
                scenario = BY_NAME[name]
                length = options.seconds or scenario.seconds
                outcome = await run_round(
                    cluster, kube, scenario, f"{seed}.{number}", directory / f"round-{number}", length, IN_FLIGHT
                )
                report.add(outcome)
                print(summary(outcome), flush=True)
    return report


def main() -> int:
    options = build_parser().parse_args()
    configure_logging("chaos", "ERROR", "console")
    directory = Path(tempfile.mkdtemp(prefix="kubechain-chaos-"))
    report = uvloop.run(sweep(options, directory))
    if options.keep_logs or report.anomalies:
        print(f"{report.anomalies} anomalies; the logs stay in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    reached = report.reached(options.kills, options.tasks)
    if not reached:
        print(
            f"only {report.kills} of {options.kills} kills over {report.tasks} of {options.tasks} Tasks within "
            f"{options.minutes:g} minutes; go on with --add",
            file=sys.stderr,
        )
    return 1 if report.anomalies or not reached else 0


if __name__ == "__main__":
    sys.exit(main())
