"""Fetches published files, and says clearly what to do where there is no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loss_balance.experiments.errors import UserError


@dataclass(frozen=True)
class Published:
    """A file on the web, and what it must hold."""

    url: str
    checksum: str  # as "sha256:..." or "md5:..."

    @property
    def file(self) -> str:
        """The file's name, the last part of its address."""
        return self.url.rpartition("/")[2]


def fetch(published: Published, folder: Path) -> None:
    """Puts the file into `folder`, made if need be; a file that fails its checksum is not kept.

    Raises:
        UserError: `folder` is a file, pooch is not installed, no network, another checksum.
    """
    if folder.is_file():
        raise UserError(f"--download needs a folder as --path, got the file {folder}")
    try:
        import pooch
        from requests import RequestException
    except ModuleNotFoundError as error:
        raise UserError(
            "--download needs pooch: pip install 'loss-balance[experiments]'"
        ) from error
    by_hand = f"without one, put the file at {folder / published.file}"
    try:
        pooch.retrieve(published.url, published.checksum, published.file, folder)
    except RequestException as error:
        raise UserError(
            f"--download needs a network that reaches {published.url}, got "
            f"{type(error).__name__}; {by_hand}"
        ) from error
    except OSError as error:
        raise UserError(f"--download needs a folder to write to, got {error}") from error
    except ValueError as error:  # pooch's word for another checksum
        raise UserError(
            f"{published.file} must have the published checksum {published.checksum}, "
            f"got another from {published.url}: try again later"
        ) from error
