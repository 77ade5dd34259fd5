"""What a measurement counts, it counts right."""

import itertools
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Figures, Plan
from bench.load import Answer, parse
from bench.machine import Machine, measure_machine
from bench.processes import ROLES, role_of
from bench.prometheus import batch_sizes, total
from bench.receiver import is_signed
from bench.report import as_json, comparison, read_earlier, remarks, table
from bench.rivals import Result, Round, ratios
from bench.tally import Rates, Series, Tally, count_by_second, percentiles
from bench.traffic import Payments, Tenant, zipf
from services.notifier.signing import signature_headers
from shared.errors import Misconfigured
from shared.webhook_endpoint import new_signing_secret

HEAD = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\n"


@given(st.integers(0, len(HEAD) + 4))
def test_an_answer_is_read_when_all_of_it_is_there(cut: int) -> None:
    whole = HEAD + b"body"
    found = parse(whole[:cut])
    assert found == (
        Answer(202, HEAD[:-4], b"body") if cut == len(whole) else None
    )  # not before its last byte


def test_an_answer_without_a_length_has_no_body() -> None:
    assert parse(b"HTTP/1.1 204 No Content\r\n\r\n") == Answer(204, b"HTTP/1.1 204 No Content", b"")


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=300))
def test_percentiles_are_of_those_that_were_measured_and_in_order(seconds: list[float]) -> None:
    found = percentiles(seconds)
    assert found is not None
    ordered = [found.p50, found.p90, found.p99, found.max]
    assert ordered == sorted(ordered)
    assert found.max == round(1000 * max(seconds), 1)
    assert {*ordered} <= {round(1000 * one, 1) for one in seconds}


@given(st.lists(st.floats(0, 10), max_size=200).map(sorted), st.integers(1, 10))
def test_every_moment_is_counted_in_one_second(times: list[float], seconds: int) -> None:
    counts = count_by_second(times, 0.0, float(seconds))
    assert len(counts) == seconds
    assert sum(counts) == sum(1 for time in times if time < seconds)


def test_a_series_counts_what_happened_within_a_window() -> None:
    series = Series()
    for at in (0.5, 1.5, 1.6, 2.5, 9.0):
        series.add(at, at / 10)
    assert list(series.latencies(1.0, 3.0)) == [0.15, 0.16, 0.25]
    rates = series.rates(1.0, 3.0)
    assert (rates.median, rates.min, rates.max, rates.windows) == (1.5, 1, 2, [2, 1])


def test_what_is_accepted_is_open_until_it_is_delivered_once() -> None:
    tally = Tally()
    heard: list[str] = []
    tally.on_object = heard.append
    tally.accepted("pay_1", 1.0, 1.25)
    assert tally.open == 1
    tally.delivered("pay_1", 2.0)
    tally.delivered("pay_1", 3.0)
    assert (tally.open, heard) == (0, ["pay_1"])
    assert list(tally.accepts.latencies(0, 9)) == [0.25]
    assert list(tally.deliveries.latencies(0, 9)) == [1.0]


def test_a_webhook_may_come_before_the_answer_that_it_is_about() -> None:
    tally = Tally()
    tally.delivered("pay_1", 1.5)
    tally.accepted("pay_1", 1.0, 2.0)
    assert tally.open == 0
    assert list(tally.deliveries.latencies(0, 9)) == [0.5]


def test_a_repeat_is_neither_open_nor_delivered() -> None:
    tally = Tally()
    tally.accepted(None, 1.0, 1.1)
    assert (tally.open, tally.repeats, len(tally.deliveries)) == (0, 1, 0)


def test_the_shares_of_traffic_are_as_asked_for() -> None:
    traffic = Payments("localhost", [Tenant("sk_a")], refunds=0.3, repeats=0.2)
    for number in range(200):
        traffic.completed(f"pay_{number}")
    asked: list[bytes] = []
    for _ in range(600):
        asked.append(traffic.next())
        if b"/refunds " in asked[-1]:
            traffic.completed(f"pay_x{len(asked)}")
    refunds = sum(b"/refunds " in one for one in asked)
    assert 0.2 < refunds / len(asked) < 0.4
    assert 0.1 < 1 - len(set(asked)) / len(asked) < 0.3


def test_every_new_request_has_a_key_of_its_own_and_says_its_length() -> None:
    traffic = Payments("localhost:1", zipf(["sk_a", "sk_b"]))
    requests = [traffic.next() for _ in range(100)]
    assert len(set(requests)) == 100
    for request in requests:
        head, body = request.split(b"\r\n\r\n", 1)
        assert f"Content-Length: {len(body)}".encode() in head
        assert head.count(b"Idempotency-Key: ") == 1


def test_the_first_of_zipf_has_twice_the_traffic_of_the_second() -> None:
    weights = [tenant.weight for tenant in zipf(["a", "b", "c", "d"])]
    assert weights[0] == 2 * weights[1] == 4 * weights[3]
    assert all(before > after for before, after in pairwise(weights))


def test_an_id_is_that_of_a_payment_or_a_refund_and_none_of_a_repeat() -> None:
    traffic = Payments("localhost", [Tenant("sk_a")])
    payment = Answer(202, b"HTTP/1.1 202", b'{"payment_id":"pay_1","status":"pending"}')
    refund = Answer(200, b"HTTP/1.1 200", b'{"id":"re_1","object":"refund"}')
    repeat = Answer(202, b"HTTP/1.1 202\r\nIdempotent-Replayed: true", payment.body)
    assert [traffic.id_of(one) for one in (payment, refund, repeat)] == ["pay_1", "re_1", None]


def test_a_sampled_signature_is_verified_by_the_bench_itself() -> None:
    secret, body = new_signing_secret(), b'{"id":"evt_1"}'
    headers = {
        name.lower().encode(): value.encode()
        for name, value in signature_headers([secret], "evt_1", 1_700_000_000, body).items()
    }
    assert is_signed(secret, headers, body)
    assert not is_signed(secret, headers, body + b" ")
    assert not is_signed(new_signing_secret(), headers, body)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/venv/bin/python", "-m", "services.api"], "api"),
        (["python", "-m", "services.notifier"], "notifier"),
        (["/usr/lib/postgresql/15/bin/postgres", "-D", "x"], "postgres"),
        (["postgres: florin florin 127.0.0.1(1) idle"], "postgres"),
        (["/usr/lib/erlang/erts-13/bin/beam.smp", "-W"], "rabbitmq"),
        (["python", "-m", "cli", "up"], None),
    ],
)
def test_a_process_is_known_by_its_command(command: list[str], role: str | None) -> None:
    assert role_of(command) == role


def test_batches_are_those_of_the_window() -> None:
    def text(rows: int, statements: int) -> str:
        return (
            "# TYPE florin_batch_size histogram\n"
            f'florin_batch_size_sum{{step="accept"}} {rows}\n'
            f'florin_batch_size_count{{step="accept"}} {statements}\n'
        )

    assert batch_sizes({"api": text(10, 10)}, {"api": text(110, 15)}) == {"accept": 20.0}
    assert total(text(110, 15), "florin_batch_size_sum") == 110


def figures() -> Figures:
    series = Series()
    for step in range(20):
        series.add(step / 10, 0.01)
    latency = percentiles([0.01])
    costs = dict.fromkeys(ROLES, 100.0)
    return Figures("e2e", 20, series.rates(0, 2), latency, latency, costs, 0.1, costs)


def test_a_run_compared_with_itself_is_one() -> None:
    one = figures()
    shown = comparison([one], {"e2e": _as_stored(one)})
    cells = [next(iter(column.cells)) for column in shown.columns]
    assert cells[0] == "e2e"
    assert set(cells[1:]) == {"1.00"}
    assert table([one]).row_count == 1


def _as_stored(one: Figures) -> dict[str, object]:
    machine = Machine(2, 100.0, 250.0)
    stored: dict[str, object] = as_json([one], Plan(), machine)["scenarios"]["e2e"]
    return stored


def test_figures_come_with_what_the_machine_was_like() -> None:
    machine = Machine(2, 100.0, 250.0)
    assert as_json([], Plan(), machine)["machine"] == {"cores": 2, "warm": 100.0, "rested": 250.0}
    assert "100 µs, and 250 µs after 3 ms of rest" in remarks([], machine)[0]


def test_a_machine_is_measured_by_its_work_and_not_by_the_wall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked = itertools.count(step=7000)  # nanoseconds
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(worked))
    began = time.perf_counter()
    machine = measure_machine()
    assert time.perf_counter() - began > 0.6, "two hundred rests of 3 ms"
    assert (machine.warm, machine.rested) == (7, 7)


def test_each_part_of_a_scenario_says_its_own_refusals() -> None:
    tally = Tally()
    tally.refused(503, 1.0)
    tally.refused(503, 2.0)
    assert tally.take_refusals() == {"503": 2}
    tally.refused(429, 3.0)
    assert tally.take_refusals() == {"429": 1}


def test_a_file_without_figures_says_what_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text("[]")
    with pytest.raises(Misconfigured, match="--json"):
        read_earlier(file)


def test_ratios_are_of_one_round() -> None:
    mine, theirs = figures(), figures()
    slower = replace(
        theirs,
        rates=Rates(theirs.rates.median / 4, 1, 1, [1]),
        cpu={role: 2 * cost for role, cost in theirs.cpu.items()},
    )
    one = Round(
        {"florin": Result(mine, mine), "orm": Result(slower, slower), "core": Result(mine, mine)},
        pgbench=mine.rates.median / 2,
    )
    found = ratios(one)
    assert found["e2e ÷ pgbench"] == 2
    assert found["e2e ÷ peer, orm"] == found["accept ÷ peer, orm"] == 4
    assert found["CPU of peer, orm ÷ florin"] == 2
    assert found["e2e ÷ peer, core"] == 1


@pytest.mark.parametrize(("program", "role"), [("uvicorn", "api"), ("celery", "processor")])
def test_the_peers_processes_are_known_too(program: str, role: str) -> None:
    assert role_of(["python", "-m", program, "app"]) == role
