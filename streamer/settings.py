"""Every setting with its default, unit and meaning, in the tables and under the names of `streamer.toml`."""

import ssl
from typing import Annotated, Literal, NewType

import msgspec

from streamer.errors import ConfigError

Duration = NewType("Duration", int)  # milliseconds, written "10m"
Size = NewType("Size", int)  # bytes, written "8MiB"
Port = NewType("Port", int)  # -1 is off, 0 any free one
Pan = Literal["reject", "hash", "accept"]


class Secret(str):
    """A string that neither `repr` nor an error message shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class Note(msgspec.Struct, frozen=True):
    """What a setting means, its unit and the lowest number allowed."""

    doc: str
    unit: str = ""
    low: int = 0


def days(count: int) -> Duration:
    """So many days as a duration."""
    return Duration(count * 86_400_000)


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the topics; `resolved` has the prefix applied."""

    prefix: Annotated[str, Note("put in front of every topic's name, letters, digits, `.`, `_` and `-`")] = ""
    payments: Annotated[str, Note("payments to decide on")] = "payments"
    outcomes: Annotated[str, Note("what became of payments")] = "outcomes"
    decisions: Annotated[str, Note("one answer per payment")] = "decisions"
    payments_rejected: Annotated[str, Note("payments without a decision, with the reason")] = (
        "payments.rejected"
    )
    outcomes_rejected: Annotated[str, Note("outcomes not used, with the reason")] = "outcomes.rejected"
    features: Annotated[str, Note("features as used, with `--emit-features`")] = "features"
    models: Annotated[str, Note("signed model snapshots, compacted")] = "models"
    journal: Annotated[str, Note("what each commit took in, compacted")] = "journal"
    changelog: Annotated[str, Note("the rows of the state, to rebuild it elsewhere, compacted")] = "changelog"
    stages: Annotated[
        str, Note("start of the names of the topics between stages, with several partitions of payments")
    ] = "stages"

    @property
    def resolved(self) -> "Topics":
        """The same with the prefix in front of every name and no prefix left; twice is as once."""
        names = {name: self.prefix + topic for name, topic in msgspec.structs.asdict(self).items()}
        return Topics(**names | {"prefix": ""})


class Kafka(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to a broker."""

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Note("encryption and authentication")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Note("how to authenticate, with a SASL protocol")
    ] = "PLAIN"
    sasl_username: Annotated[str, Note("user name, with a SASL protocol")] = ""
    sasl_password: Annotated[Secret, Note("password, with a SASL protocol; best given as a variable")] = (
        Secret()
    )
    ssl_cafile: Annotated[str, Note("authorities to trust, PEM; empty: the system's")] = ""
    ssl_certfile: Annotated[str, Note("certificate to show to the broker, PEM")] = ""
    ssl_keyfile: Annotated[str, Note("key of that certificate, PEM; empty: in the same file")] = ""
    replication_factor: Annotated[
        int, Note("copies of topics we create; -1: the broker's default", low=-1)
    ] = -1
    compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"], Note("codec of what we send")
    ] = "snappy"
    session_timeout_ms: Annotated[
        int, Note("silence after which the group takes a worker for dead", "ms", low=1_000)
    ] = 6_000
    request_timeout_ms: Annotated[int, Note("longest wait for the broker's answer", "ms", low=1)] = 40_000
    transaction_timeout_ms: Annotated[
        int, Note("age at which the broker aborts a transaction and fences its worker", "ms", low=1_000)
    ] = 60_000

    def security(self) -> dict[str, object]:
        """Security in aiokafka's names: security_protocol, sasl_* and ssl_context as the protocol needs them.

        Raises ConfigError where a file of certificates cannot be used.
        """
        options: dict[str, object] = {"security_protocol": self.security_protocol}
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = str(self.sasl_password)
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile or None)
            if self.ssl_certfile:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile or None)
        except OSError as error:
            raise ConfigError(
                f"Expected readable PEM files, got {error} - at `[kafka] ssl_cafile, ssl_certfile, "
                "ssl_keyfile`; check with `openssl x509 -noout -in FILE`"
            ) from error
        return context


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, and where."""

    memory_budget: Annotated[Size, Note("memory for the keys of all shards; the rest is on disk", "size")] = (
        Size(2**30)
    )
    decided_retention: Annotated[
        Duration, Note("how long features as decided are kept for outcomes that may still come", "duration")
    ] = days(180)
    changelog: Annotated[
        Literal["auto", "off"],
        Note("whether commits go to a topic too, to rebuild the state elsewhere; auto: on Kafka they do"),
    ] = "auto"
    standbys: Annotated[int, Note("workers that keep a copy of each shard beside its owner", low=0)] = 0
    changelog_deletions: Annotated[
        Duration,
        Note(
            "how long the changelog's topic keeps deletions (delete.retention.ms); a state directory that"
            " is behind by more than half of it is rebuilt",
            "duration",
        ),
    ] = days(1)


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """How often state and position are made to last.

    A kill costs nothing that was committed. A power cut takes the commits since the last forced write: their
    payments and outcomes are read again, so up to `fsync_interval_ms` of decisions are repeated. With 1 every
    commit is forced, which takes what the disk takes: half a millisecond to ten, beside the stream. On the
    embedded log the records that a commit covers are forced before it is stored, whatever the interval; on
    Kafka that is the brokers' affair, and a state that stands ahead of its topic is refused at the start.

    Each of several shards commits so much less often, up to 8 times, whichever worker has it; in
    transactions, for which readers wait, the interval stays and only `max_dirty_rows` grows with them.
    """

    interval_ms: Annotated[int, Note("longest time between two commits", "ms", low=1)] = 50
    redo_payments: Annotated[
        int, Note("payments that a start may have to count again, so that keys are written less often", low=0)
    ] = 1_000_000
    max_dirty_rows: Annotated[int, Note("changed rows that bring a commit forward", "rows", low=1)] = 1_000
    fsync_interval_ms: Annotated[
        int, Note("time between forced writes to disk; 1: every commit", "ms", low=1)
    ] = 1_000
    group_commit_interval_ms: Annotated[
        int, Note("time between commits of the consumer group's offsets", "ms", low=1)
    ] = 1_000


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are taken in."""

    allowed_lateness: Annotated[Duration, Note("how late a payment may come and still count", "duration")] = (
        days(7)
    )
    dedup_window: Annotated[Duration, Note("how long a payment_id is remembered", "duration")] = days(1)
    future_tolerance: Annotated[
        Duration, Note("how far event_time may lie ahead of the reference", "duration")
    ] = Duration(600_000)
    future_reference: Annotated[
        Literal["log_time", "none"],
        Note("what the future is judged against: the record's timestamp, or nothing"),
    ] = "log_time"
    max_record_bytes: Annotated[Size, Note("largest record that is read", "size")] = Size(2**20)
    pan_key: Annotated[Secret, Note("HMAC key of the PAN policy `hash`, at least 16 bytes")] = Secret()


class PanPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a value that looks like a card number, per field of a payment."""

    card: Annotated[Pan, Note("`reject`, `hash` (keyed HMAC-SHA256) or `accept` (network tokens)")] = "reject"
    customer: Annotated[Pan, Note("as `card`")] = "accept"
    merchant: Annotated[Pan, Note("as `card`")] = "accept"
    device: Annotated[Pan, Note("as `card`")] = "accept"
    ip: Annotated[Pan, Note("as `card`")] = "accept"
    email: Annotated[Pan, Note("as `card`")] = "accept"
    phone: Annotated[Pan, Note("as `card`")] = "accept"
    terminal: Annotated[Pan, Note("as `card`")] = "accept"
    order: Annotated[Pan, Note("as `card`")] = "accept"

    def by_field(self) -> dict[str, Pan]:
        """Field of a payment to its policy."""
        return msgspec.structs.asdict(self)


class Buffers(msgspec.Struct, frozen=True, kw_only=True):
    """How much is read ahead."""

    partition_bytes: Annotated[Size, Note("bytes fetched and not yet processed, per partition", "size")] = (
        Size(8 << 20)
    )
    batch_max_records: Annotated[int, Note("records processed in one step", "records", low=1)] = 1_000
    fetch_max_wait_ms: Annotated[int, Note("longest wait of a fetch for more to arrive", "ms", low=1)] = 10
    fetch_max_bytes: Annotated[Size, Note("bytes of one fetch", "size")] = Size(4 << 20)


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """How models learn and are published."""

    snapshot_interval_ms: Annotated[
        int, Note("shortest time between two snapshots of a model", "ms", low=1)
    ] = 10_000
    snapshot_key: Annotated[
        Secret, Note("HMAC key that signs snapshots, at least 16 bytes, the same for all workers")
    ] = Secret()
    learn_slice_ms: Annotated[int, Note("longest time that learning holds up scoring", "ms", low=1)] = 5


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What money in other currencies than the topology's base currency is worth."""

    file: Annotated[
        str, Note("CSV of `date,currency,rate`, see streamer/rates.py; empty: other amounts are missing")
    ] = ""


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """Where /metrics, /healthz and /readyz are served."""

    host: Annotated[str, Note("address to listen on; others than loopback show metrics to the network")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Note("port; 0: any free one, -1 or `none`: off")] = Port(6066)


class Testing(msgspec.Struct, frozen=True, kw_only=True):
    """What only tests want."""

    faults: Annotated[
        str,
        Note("points where the worker is killed or held up, see streamer/faults.py; empty: none"),
    ] = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All tables of `streamer.toml`."""

    topics: Topics = Topics()
    kafka: Kafka = Kafka()
    state: State = State()
    commit: Commit = Commit()
    events: Events = Events()
    pan_policy: PanPolicy = PanPolicy()
    buffers: Buffers = Buffers()
    models: Models = Models()
    rates: Rates = Rates()
    web: Web = Web()
    testing: Testing = Testing()
