"""Starts one stdio MCP server and sees to it that nothing of it outlives mcp-host, that it stays within its limits, and
that it reaches nothing but its own. Runs as ``python -I -S stdio_guard.py ORDERS -- CMD ARGS`` (``guard/orders.py``).

A server started by ``uvx`` or ``npx`` is a tree of processes, and neither closing stdin nor a signal to its root
reliably ends all of it; a host that is killed can do neither. So this small process sits between the two. The server
inherits its stdin, stdout and stderr and talks to the host directly; the guard only watches:

- stdin hung up (the host closed it, or died in whatever way): the server has ``STDIN_GRACE`` seconds to leave, then
it is told to;
- SIGTERM, SIGINT or SIGHUP: it is told to leave at once;
- it is over its memory limit: it is killed;
- it has left: what it leaves behind is ended too.

"All of it" means its process group and, on Linux, every other descendant: as a subreaper the guard becomes their
parent. What it is made of is in ``guard``, which imports nothing else of ours and little of Python's, because one runs
per server.
"""

import os
import sys


def main() -> int:
    # -I and -S leave only Python's own library on the path; ours comes last.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from kubechain_mcp_host.guard.run import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
