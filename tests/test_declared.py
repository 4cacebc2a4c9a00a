"""State directories know what they were written under."""

from pathlib import Path

from river import linear_model

from streamer import Entity, Model, Policy, Topology, amount, block, count, hour_sin, merchant, night, total
from streamer.changes import Declared, declare
from streamer.declared import DECLARED, changes_in, clock_of, declared_in
from streamer.engine import Engine
from streamer.features.aggregates import Aggregate, distinct
from streamer.features.expressions import payment_value
from streamer.state.store import Progress, Store, WriteSet
from tests.test_engine import DAY, NOW, SETTINGS, commit, features_of, payment, records_of

LATENESS = SETTINGS.events.allowed_lateness


def topology(*aggregates: Aggregate) -> Topology:
    """Cards, counted by the hour at least, and domains of their holders."""
    cards = Entity("card", features=[count("1h"), *aggregates])
    domains = Entity("email_domain", features=[count("1d"), distinct(merchant, "1d")])
    own = (payment_value(amount) - cards["count_1h"]).named("own")
    fraud = Model("fraud", [cards, domains, own, night], linear_model.LogisticRegression())
    return Topology("small", [fraud], Policy("mine", 1, [block(fraud > 0.9), block(hour_sin > 2)]))


def written(path: Path, made: Topology, *numbers: int, everything: bool = True) -> None:
    """Decide these payments, a minute after each other, and commit."""
    with Store.open(path) as store:
        engine = Engine(made, store, SETTINGS)
        values = [payment(n, NOW + n * 60_000, email=f"{n}@Shop.example") for n in numbers]
        engine.process(records_of(values, numbers[0]))
        writes = engine.cut(everything=everything)
        store.commit(writes)
        engine.written()


def test_a_new_directory_has_everything_from_the_first_payment_on(tmp_path: Path) -> None:
    """And nothing changes for the same declarations."""
    made = topology()
    with Store.open(tmp_path) as store:
        assert declared_in(store, made, LATENESS) is None
        assert changes_in(store, made, LATENESS) == []
    written(tmp_path, made, 1, 2)
    with Store.read(tmp_path) as store:
        assert declared_in(store, made, LATENESS) == declare(made, LATENESS, None, 0)
        assert changes_in(store, made, LATENESS) == []
        assert clock_of(store) == NOW + 120_000


def test_changes_are_noted_with_the_first_commit(tmp_path: Path) -> None:
    """A field kept since the second start stays kept since then, over every later start."""
    since = NOW + 60_000
    written(tmp_path, topology(), 1)
    after = topology(total(amount, "1d"))
    with Store.open(tmp_path) as store:
        Engine(after, store, SETTINGS)
        ready = {change.subject: change.ready_from for change in changes_in(store, after, LATENESS)}
    assert ready["feature card_sum_amount_1d"] == since + DAY
    for number in (2, 3):
        written(tmp_path, after, number)
        with Store.read(tmp_path) as store:
            noted = declared_in(store, after, LATENESS)
            assert noted is not None
            assert noted.entities["card"].columns == {"amount/0": since}
            assert {change.kind for change in changes_in(store, after, LATENESS)} == {"filling"}


def test_the_note_is_written_once(tmp_path: Path) -> None:
    """A start without a change adds nothing to its commit."""
    written(tmp_path, topology(), 1)
    with Store.open(tmp_path) as store:
        engine = Engine(topology(), store, SETTINGS)
        assert DECLARED not in [key for key, _ in engine.cut().rows]


def test_a_directory_without_a_note(tmp_path: Path) -> None:
    """Is taken to have what the topology declares if that wrote it last, and nothing otherwise."""
    made = topology()
    with Store.open(tmp_path) as store:
        store.commit(WriteSet(Progress(greatest={0: NOW}, topology=made.fingerprint)))
        assert declared_in(store, made, LATENESS) == declare(made, LATENESS, None, 0)
        assert declared_in(store, topology(count("2h")), LATENESS) == Declared()


def test_domains_of_emails_are_counted_again_after_a_crash(tmp_path: Path) -> None:
    """What was decided and not yet written to its keys: the made field is made again from the payments."""
    made = topology()
    written(tmp_path, made, 1, 2, everything=False)
    with Store.open(tmp_path) as store:
        assert store.progress.redo == 0
        engine = Engine(made, store, SETTINGS, emit_features=True)
        values = [
            payment(3, NOW + 180_000, email="x@shop.EXAMPLE", merchant="m2"),
            payment(4, NOW + 180_000, email="x", amount=7),
        ]
        found = features_of(engine.process(records_of(values, 3)))
        commit(engine, store)
    assert (found["p3"]["email_domain_count_1d"], found["p3"]["email_domain_distinct_merchant_1d"]) == (3, 2)
    assert found["p4"]["email_domain_count_1d"] is None
    assert (found["p4"]["card_count_1h"], found["p4"]["own"]) == (4, 3)
    # 2023-11-14T22:16:20Z is a Tuesday evening.
    assert (found["p4"]["night"], found["p4"]["hour_sin"] is not None) == (0, True)
