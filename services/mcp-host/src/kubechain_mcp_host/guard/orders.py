"""What a guard is told on its command line, written by mcp-host and read by the guard."""

_SEPARATOR = "--"


class Orders:
    """What a guard is told. ``landlock`` is the ABI to isolate the server with, 0 for none; ``readable``, ``writable``,
    ``ports`` (the descriptor of a ruleset) and ``seccomp`` (1: filter system calls as well) belong to it. ``memory``
    (bytes) and ``cpu`` (cores) are limits, 0 for none. ``report`` is a descriptor for the one sentence in which the
    guard says why it ended, or could not start, the server; -1: none. ``environment`` is how many bytes of the server's
    environment come first on stdin: a command line is no place for it, everybody can read that.
    """

    __slots__ = (
        "command",
        "cpu",
        "environment",
        "landlock",
        "memory",
        "ports",
        "readable",
        "report",
        "seccomp",
        "writable",
    )

    def __init__(
        self,
        command: "list[str]",
        *,
        landlock: int = 0,
        seccomp: int = 0,
        readable: "tuple[str, ...]" = (),
        writable: "tuple[str, ...]" = (),
        ports: int = -1,
        memory: int = 0,
        cpu: float = 0.0,
        report: int = -1,
        environment: int = 0,
    ) -> None:
        self.command = command
        self.landlock = landlock
        self.seccomp = seccomp
        self.readable = readable
        self.writable = writable
        self.ports = ports
        self.memory = memory
        self.cpu = cpu
        self.report = report
        self.environment = environment

    def to_arguments(self, report: int, environment: int = 0) -> "list[str]":
        """The guard's command line; its ``report`` and ``environment`` differ from start to start."""
        options = [f"--{name}={getattr(self, name)}" for name in ("landlock", "seccomp", "ports", "memory", "cpu")]
        paths = [f"--{name}={path}" for name in ("readable", "writable") for path in getattr(self, name)]
        return [*options, *paths, f"--report={report}", f"--environment={environment}", _SEPARATOR, *self.command]


def parse_orders(arguments: "list[str]") -> Orders:
    """The orders on a command line. Raises ValueError for anything that ``to_arguments`` would not have written."""
    end = arguments.index(_SEPARATOR)
    found: dict[str, list[str]] = {}
    for argument in arguments[:end]:
        name, _, value = argument.removeprefix("--").partition("=")
        found.setdefault(name, []).append(value)

    def last(name: str, default: str) -> str:
        return found.pop(name, [default])[-1]

    orders = Orders(
        arguments[end + 1 :],
        landlock=int(last("landlock", "0")),
        seccomp=int(last("seccomp", "0")),
        readable=tuple(found.pop("readable", ())),
        writable=tuple(found.pop("writable", ())),
        ports=int(last("ports", "-1")),
        memory=int(last("memory", "0")),
        cpu=float(last("cpu", "0")),
        report=int(last("report", "-1")),
        environment=int(last("environment", "0")),
    )
    if found or not orders.command:
        raise ValueError(f"unknown orders: {', '.join(found) or 'no command'}")
    return orders
