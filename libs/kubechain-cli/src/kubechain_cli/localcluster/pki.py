"""Where the keys of a local control plane lie. `certificates` makes them; nearly everyone else needs only the paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pki:
    """Paths of the PEM files in one directory."""

    directory: Path

    @property
    def ca_cert(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def serving_cert(self) -> Path:
        return self.directory / "serving.crt"

    @property
    def serving_key(self) -> Path:
        return self.directory / "serving.key"

    @property
    def service_account_key(self) -> Path:
        return self.directory / "service-account.key"

    def client_cert(self, identity: str) -> Path:
        return self.directory / f"{identity}.crt"

    def client_key(self, identity: str) -> Path:
        return self.directory / f"{identity}.key"

    def complete(self, identities: tuple[str, ...]) -> bool:
        """Whether every file is there, so that nothing needs to be made anew."""
        files = [self.ca_cert, self.serving_cert, self.serving_key, self.service_account_key]
        for identity in identities:
            files += [self.client_cert(identity), self.client_key(identity)]
        return all(file.is_file() for file in files)
