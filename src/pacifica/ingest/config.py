"""The settings: every key with its section, environment name, default and meaning, in one place.

A value in the INI file beats the environment, the environment beats the default.  `get_config` is the documented
`ConfigParser` view; the package itself works with the typed `Settings`.  Reads files and environment only when called.
"""

import logging
import os
from configparser import ConfigParser, Error
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pacifica.ingest import globals as files
from pacifica.ingest.core.digests import ALGORITHMS
from pacifica.ingest.core.errors import BadConfiguration
from pacifica.ingest.core.sizes import parse_size
from pacifica.ingest.core.text import masked

__all__ = [
    "UNIX",
    "IngestSection",
    "Key",
    "Peer",
    "Settings",
    "get_config",
    "keys",
    "load_settings",
    "standalone_settings",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Env:
    """The environment variable of a key.

    Attributes:
        name: of the variable.
        secret: the value may carry a password: then a variable of this name and `_FILE` may name a file that has it.

    """

    name: str
    secret: bool = False

    @property
    def file(self) -> str:
        """The variable that names a file."""
        return f"{self.name}_FILE"


#: Whoever connects through a Unix socket.
UNIX: Final = "unix"
Peer = IPv4Network | IPv6Network | Literal["unix"]


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        scheme = value.partition(":")[0]
        if scheme not in schemes or (scheme.startswith("http") and not urlsplit(value).hostname):
            msg = f"expected {' or '.join(_example(scheme) for scheme in schemes)}"
            raise ValueError(msg)
        if scheme == "local" and value != "local:":
            _rooted(Path(value.partition(":")[2]))
        if scheme == "file" and not value.startswith("file:///"):
            msg = f"expected {_example(scheme)}"
            raise ValueError(msg)
        return value.rstrip("/") if scheme != "local" else value

    return AfterValidator(check)


def _example(scheme: str) -> str:
    return {"file": "file:///absolute/path", "local": "local:"}.get(scheme, f"{scheme}://host:port")


def _size(value: object) -> int:
    return value if isinstance(value, int) else parse_size(str(value))


def _paths(value: object) -> object:
    if isinstance(value, str):
        return tuple(Path(part.strip()) for part in value.split(",") if part.strip())
    return value


def _rooted(path: Path) -> Path:
    """Server, workers and commands start in different folders, and must mean the same one."""
    if not path.root:
        msg = f"expected an absolute path, as {Path.cwd() / path}"
        raise ValueError(msg)
    return path


def _all_rooted(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(_rooted(path) for path in paths)


def _algorithm(value: str) -> str:
    if value and value.lower() not in ALGORITHMS:
        msg = f"expected nothing or {' or '.join(ALGORITHMS)}"
        raise ValueError(msg)
    return value.lower()


def _peers(value: object) -> object:
    if isinstance(value, str):
        return tuple(_peer(part.strip()) for part in value.split(",") if part.strip())
    return value


def _peer(text: str) -> Peer:
    if text == UNIX:
        return UNIX
    try:
        return ip_network(text)
    except ValueError as fault:
        msg = f"expected addresses or networks, as 10.1.2.3 or 10.1.2.0/24, or {UNIX}, separated by commas; {fault}"
        raise ValueError(msg) from fault


Peers = Annotated[tuple[Peer, ...], BeforeValidator(_peers)]
Folder = Annotated[Path, AfterValidator(_rooted)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Folders = Annotated[tuple[Path, ...], BeforeValidator(_paths), AfterValidator(_all_rooted)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """One section of the INI file."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class IngestSection(Section):
    """[ingest]: the service itself."""

    auth_header: Annotated[str, Env("INGEST_AUTH_HEADER"), Field(pattern=r"^[A-Za-z0-9-]+$")] = Field(
        "X-Http-Authed-User", description="request header that carries the authenticated user"
    )
    default_user: Annotated[Text, Env("INGEST_DEFAULT_USER")] = Field(
        "anonymous", description="the user of a request without that header"
    )
    trusted_proxies: Annotated[Peers, Env("INGEST_TRUSTED_PROXIES")] = Field(
        "127.0.0.0/8, ::1, unix",
        validate_default=True,
        description="addresses and networks, separated by commas, from which that header is believed; empty: from nobody",
    )
    enforce_submitter: Annotated[Literal["off", "warn", "on"], Env("INGEST_ENFORCE_SUBMITTER")] = Field(
        "off", description="whether who submits must be the authenticated user: off, warn (in the log) or on"
    )
    own_jobs_only: Annotated[bool, Env("INGEST_OWN_JOBS_ONLY")] = Field(
        False,
        description="get_state tells a user nothing of the jobs of others",
    )
    transfer_size: Annotated[Size, Env("TRANSFER_SIZE"), Field(ge=4096)] = Field(
        "4 Mb", validate_default=True, description="bytes moved at a time"
    )
    volume_path: Annotated[Folder, Env("VOLUME_PATH")] = Field(
        Path("/tmp"),  # noqa: S108 (the documented default)
        description="folder for bundles until they are archived",
    )
    max_upload_size: Annotated[Size, Env("INGEST_MAX_UPLOAD_SIZE")] = Field(
        "0 B", validate_default=True, description="largest body taken; 0 is no limit"
    )
    max_metadata_size: Annotated[Size, Env("INGEST_MAX_METADATA_SIZE"), Field(ge=4096)] = Field(
        "512 Mb", validate_default=True, description="largest metadata.txt, or document of a move"
    )
    max_members: Annotated[int, Env("INGEST_MAX_MEMBERS"), Field(ge=1)] = Field(
        1_000_000, description="most members of a bundle besides metadata.txt, folders included"
    )
    max_name_length: Annotated[int, Env("INGEST_MAX_NAME_LENGTH"), Field(ge=1, le=65536)] = Field(
        4096, description="longest name of a member, in characters"
    )
    max_extended_header: Annotated[Size, Env("INGEST_MAX_EXTENDED_HEADER"), Field(ge=512)] = Field(
        "1 Mb", validate_default=True, description="largest extended header of a member; read into memory"
    )
    min_hash: Annotated[str, Env("INGEST_MIN_HASH"), AfterValidator(_algorithm)] = Field(
        "", description="weakest hashtype that a file may have; empty: any"
    )
    keep_free: Annotated[Size, Env("INGEST_KEEP_FREE")] = Field(
        "64 Mb", validate_default=True, description="space on volume_path that no upload may use up"
    )
    upload_timeout: Annotated[int, Env("INGEST_UPLOAD_TIMEOUT"), Field(ge=1)] = Field(
        300, description="seconds that a sender may pause within a request"
    )
    min_rate: Annotated[Size, Env("INGEST_MIN_RATE")] = Field(
        "100 B", validate_default=True, description="least bytes per second of a request, on the average; 0: any"
    )
    min_rate_after: Annotated[int, Env("INGEST_MIN_RATE_AFTER"), Field(ge=0)] = Field(
        300, description="seconds in which a request may be slower than that"
    )
    max_uploads: Annotated[int, Env("INGEST_MAX_UPLOADS"), Field(ge=0, le=1000)] = Field(
        64, description="uploads received at once by one server process; 0: as many as it has threads"
    )
    max_uploads_per_user: Annotated[int, Env("INGEST_MAX_UPLOADS_PER_USER"), Field(ge=0)] = Field(
        32, description="of these for one user whom a request names; 0: no limit"
    )
    move_roots: Annotated[Folders, Env("INGEST_MOVE_ROOTS")] = Field(
        (), description="folders, separated by commas, that the sources of a move must lie under; empty: volume_path"
    )
    retry_for: Annotated[int, Env("INGEST_RETRY_FOR"), Field(ge=0)] = Field(
        120, description="seconds that a job waits for a neighbour that is away, before it fails; 0: fail at once"
    )
    keep_failed: Annotated[int, Env("INGEST_KEEP_FAILED"), Field(ge=1)] = Field(
        30, description="days that the bundle of a failed job is kept at least"
    )
    lease: Annotated[int, Env("INGEST_LEASE"), Field(ge=2)] = Field(
        30, description="seconds without progress after which another worker takes a job over"
    )
    workers: Annotated[int, Env("INGEST_WORKERS"), Field(ge=1, le=256)] = Field(
        2, description="worker processes of a standalone service"
    )


class UniqueIDSection(Section):
    """[uniqueid]: who gives out numbers."""

    url: Annotated[str, Env("UNIQUEID_URL", secret=True), _url("http", "https", "local")] = Field(
        "http://127.0.0.1:8051", description="the UniqueID service, or local:"
    )


class PolicySection(Section):
    """[policy]: who may submit what."""

    ingest_url: Annotated[str, Env("POLICY_INGEST_URL", secret=True), _url("http", "https", "local")] = Field(
        "http://127.0.0.1:8181/ingest", description="the Policy service, or local: with an optional path of a rule file"
    )


class ArchiveSection(Section):
    """[archiveinterface]: who keeps the bytes."""

    url: Annotated[str, Env("ARCHIVEINTERFACE_URL", secret=True), _url("http", "https", "file")] = Field(
        "http://127.0.0.1:8080", description="the Archive Interface, or file:// with an absolute folder"
    )
    verify: Annotated[Literal["full", "size", "none"], Env("ARCHIVEINTERFACE_VERIFY")] = Field(
        "full", description="what is read back after archiving: bytes and digest, the length, or nothing"
    )
    connections: Annotated[int, Env("ARCHIVEINTERFACE_CONNECTIONS"), Field(ge=1, le=64)] = Field(
        1, description="connections to the archive at once; more than 1 only after `doctor` found it safe"
    )


class MetadataSection(Section):
    """[metadata]: who keeps the catalogue."""

    ingest_url: Annotated[str, Env("METADATA_INGEST_URL", secret=True), _url("http", "https", "local")] = Field(
        "http://127.0.0.1:8121/ingest", description="the Metadata service, or local:"
    )


class DatabaseSection(Section):
    """[database]: where job states are kept."""

    peewee_url: Annotated[Text, Env("PEEWEE_URL", secret=True)] = Field(
        "sqliteext:///db.sqlite3", description="sqlite, sqliteext, postgresql or mysql URL"
    )
    connect_attempts: Annotated[int, Env("DATABASE_CONNECT_ATTEMPTS"), Field(ge=1)] = Field(
        10, description="how often to try to connect at the start"
    )
    connect_wait: Annotated[int, Env("DATABASE_CONNECT_WAIT"), Field(ge=0)] = Field(
        20, description="seconds between two tries"
    )


class CelerySection(Section):
    """[celery]: how work reaches the workers of a facility."""

    broker_url: Annotated[Text, Env("BROKER_URL", secret=True)] = Field(
        "pyamqp://", description="RabbitMQ or Redis URL"
    )
    backend_url: Annotated[str, Env("BACKEND_URL", secret=True)] = Field(
        "rpc://", description="taken for compatibility and not used: job states are in the database"
    )


class Settings(BaseModel):
    """All settings, checked."""

    model_config = ConfigDict(frozen=True)

    ingest: IngestSection = IngestSection()
    uniqueid: UniqueIDSection = UniqueIDSection()
    policy: PolicySection = PolicySection()
    archiveinterface: ArchiveSection = ArchiveSection()
    metadata: MetadataSection = MetadataSection()
    database: DatabaseSection = DatabaseSection()
    celery: CelerySection = CelerySection()
    #: The folder of a standalone service, or None.
    standalone: Path | None = None

    @property
    def move_roots(self) -> tuple[Path, ...]:
        """The folders that sources of a move must lie under."""
        return self.ingest.move_roots or (self.ingest.volume_path,)

    @property
    def rule_file(self) -> Path | None:
        """The rules of a policy of our own; the file need not be there when only `standalone` says where it is."""
        url = self.policy.ingest_url
        if url == "local:":
            return self.standalone and self.standalone / "policy.toml"
        return Path(url.removeprefix("local:")) if url.startswith("local:") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One configuration key.

    Attributes:
        section: of the INI file.
        name: in that section.
        env: its environment variable.
        default: as it would be written in the file.
        meaning: one line.
        env_file: the variable that may name a file with the value, empty when there is none.

    """

    section: str
    name: str
    env: str
    env_file: str
    default: str
    meaning: str


def keys() -> list[Key]:
    """Every configuration key, in the order of the file."""
    found = []
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, Section)):
            continue
        for name, spec in model.model_fields.items():
            env = next(part for part in spec.metadata if isinstance(part, Env))
            found.append(
                Key(
                    section=section,
                    name=name,
                    env=env.name,
                    env_file=env.file if env.secret else "",
                    default="" if spec.default == () else str(spec.default),
                    meaning=str(spec.description),
                )
            )
    return found


def get_config() -> ConfigParser:
    """All keys as a `ConfigParser`: defaults, then environment, then the file `globals.CONFIG_FILE`.

    Raises:
        BadConfiguration: the file is no INI file, or cannot be read, or a file of a secret cannot; not retryable.

    """
    parser = ConfigParser()
    for key in keys():
        if not parser.has_section(key.section):
            parser.add_section(key.section)
        parser.set(key.section, key.name, (_environment(key) or key.default).replace("%", "%%"))
    try:
        parser.read(files.CONFIG_FILE, encoding="utf-8")
    except (Error, OSError, UnicodeDecodeError) as fault:
        msg = f"{files.CONFIG_FILE}: {fault}"
        raise BadConfiguration(msg) from fault
    return parser


def _environment(key: Key) -> str:
    """What the environment says of a key, itself or by a file; empty when it says nothing.

    Raises:
        BadConfiguration: it says both, or the file cannot be read; not retryable.

    """
    value = os.environ.get(key.env, "")
    place = os.environ.get(key.env_file, "") if key.env_file else ""
    if not place:
        return value
    if value:
        msg = f"environment variables {key.env} and {key.env_file} are both set: take one away."
        raise BadConfiguration(msg)
    try:
        return Path(place).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is no text in UTF-8"
        msg = f"environment variable {key.env_file} names a file that cannot be read: {place}: {reason}"
        raise BadConfiguration(msg) from fault


def load_settings() -> Settings:
    """The settings of this process, checked.

    Raises:
        BadConfiguration: one line for each wrong value, naming file or variable, key and what is allowed.

    """
    return _settings(_values(_checked_file()))


def standalone_settings(folder: Path) -> Settings:
    """The settings of a service that keeps everything in one folder.

    The keys that choose neighbours, database and staging are given, but for a rule file that `[policy] ingest_url` names;
    all others are read as usual.

    Raises:
        BadConfiguration: as `load_settings`, or a folder whose name has no place in a database URL.

    """
    root = folder.absolute()
    if {"#", "?"} & set(str(root)):
        msg = f"{root}: the path of a standalone service must not contain '#' or '?'."
        raise BadConfiguration(msg)
    own = {
        ("ingest", "volume_path"): str(root / "staging"),
        ("uniqueid", "url"): "local:",
        ("policy", "ingest_url"): "local:",
        ("archiveinterface", "url"): (root / "archive").as_uri(),
        ("metadata", "ingest_url"): "local:",
        ("database", "peewee_url"): f"sqlite:///{root / 'ingest.sqlite3'}",
    }
    values = _values(_checked_file())
    for key in keys():
        place, given = (key.section, key.name), values[key.section][key.name]
        if place not in own or (place == ("policy", "ingest_url") and given.startswith("local:")):
            continue
        if given != key.default:
            about = {"section": key.section, "key": key.name, "from": _origin(key)}
            logger.info("a standalone service does not use a setting", extra=about)
        values[key.section][key.name] = own[place]
    return _settings(values).model_copy(update={"standalone": root})


def _values(parser: ConfigParser) -> dict[str, dict[str, str]]:
    try:
        return {section: dict(parser.items(section)) for section in parser.sections()}
    except Error as fault:
        msg = f"{files.CONFIG_FILE}: {fault} (a % in a value is written %%)"
        raise BadConfiguration(msg) from fault


def _settings(values: dict[str, dict[str, str]]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as fault:
        lines = [_line(dict(error), values) for error in fault.errors()]
        raise BadConfiguration("\n".join(lines)) from fault


#: What is allowed where the library's own words would not help: the kind of error → ours.
_EXPECTED: Final = {
    "bool_parsing": "expected true or false",
    "int_parsing": "expected a whole number",
    "string_pattern_mismatch": "expected letters, digits and hyphens",
}


def _line(error: dict[str, Any], values: dict[str, dict[str, str]]) -> str:
    section, name = (str(part) for part in error["loc"][:2])
    key = next(key for key in keys() if (key.section, key.name) == (section, name))
    value = values.get(section, {}).get(name, "")
    allowed = _EXPECTED.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    return f"{_origin(key)}: [{section}] {name} = {masked(value)!r}: {allowed} ({key.meaning})"


def _origin(key: Key) -> str:
    """Where the value in force comes from."""
    file = ConfigParser(interpolation=None)
    file.read(files.CONFIG_FILE, encoding="utf-8")
    if file.has_option(key.section, key.name):
        return files.CONFIG_FILE
    if key.env_file and os.environ.get(key.env_file):
        return f"file of environment variable {key.env_file}"
    return f"environment variable {key.env}" if key.env in os.environ else "default"


def _checked_file() -> ConfigParser:
    """`get_config`, with a warning of what is probably a slip of the pen; 0.4.1 passes over both in silence."""
    named = os.environ.get("INGEST_CONFIG")
    if named and not Path(named).exists():
        logger.warning("INGEST_CONFIG names a file that is not there", extra={"file": named})
    parser = get_config()
    known = {(key.section, key.name) for key in keys()}
    for section in parser.sections():
        for name in parser.options(section):
            if (section, name) not in known:
                logger.warning("unknown configuration key", extra={"section": section, "key": name})
    return parser
