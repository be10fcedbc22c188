"""The pipeline's rules in a time of their own: no threads, no sleeping, any schedule hypothesis can think of."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain.runtime.frames import Frame
from derain.runtime.guard import Guard, State
from derain.runtime.pipeline import Loop
from derain.runtime.queues import DEPTH, FrameQueue, Policy
from derain.runtime.records import FrameRecord, Outcome, Tally, Why
from derain.runtime.testing import Calls
from derain.runtime.worker import Done

MS = 10**6
IMAGE = np.zeros((1, 1, 3), np.uint8)
CLEAN = np.ones((1, 1, 3), np.uint8)


class Simulation:
    """A camera, an engine and a sink that take the times they are given, on one clock that is only a number."""

    def __init__(self, policy, gaps_ms, jobs, sink_ms=0, deadline_ms=None, reopen_ms=20):
        self.now, self.policy = 0, policy
        self.arrivals = [at * MS for at in itertools.accumulate(gaps_ms)]
        self.jobs = iter(jobs)  # (milliseconds, fault or None) a frame the engine gets, then always the last
        self.job = (1, None)
        self.sink_ms, self.reopen_ms = sink_ms, reopen_ms
        self.put = 0
        self.pending = None
        self.queue = FrameQueue(policy)
        self.guard = Guard(None if deadline_ms is None else deadline_ms * MS)
        self.records, self.pictures, self.unused = [], [], []
        self.loop = Loop(
            self.queue, self, self, self.guard, Calls(
                on_frame=lambda record, frame, image: (self.records.append(record), self.pictures.append(image)),
                on_drop=self.records.append,
                on_unused=lambda captured_ns, ns: self.unused.append((captured_ns, ns)),
            ),
            clock=lambda: self.now,
        )  # fmt: skip

    # The worker's face.

    def infer(self, frame):
        assert self.pending is None, "the engine got a frame while it had one"
        self.job = next(self.jobs, self.job)
        took, fault = self.job
        clean = CLEAN if fault is None else None
        self.pending = Done(frame, clean, self.now, self.now + took * MS, fault)

    def reopen(self):
        assert self.pending is None
        self.pending = Done(None, None, self.now, self.now + self.reopen_ms * MS, None)

    def poll(self):
        if self.pending is None or self.pending.end_ns > self.now:
            return None
        done, self.pending = self.pending, None
        return done

    # The sink's face.

    def write(self, _image, _captured_ns, raw):
        self.now += self.sink_ms * MS
        self.deliver()

    def deliver(self):
        """What the capture thread has done by now."""
        while self.arrivals and self.arrivals[0] <= self.now:
            if self.policy is Policy.EVERY and len(self.queue) == DEPTH[Policy.EVERY]:
                return
            at = self.arrivals.pop(0)
            captured = at if self.policy is Policy.LATEST else self.now
            self.queue.put(Frame(self.put, captured, IMAGE, captured))
            self.put += 1
        if not self.arrivals:
            self.queue.close()

    def run(self):
        self.deliver()
        while not self.loop.finished:
            moved = self.loop.step()
            self.deliver()
            engine_is_done = self.pending is not None and self.pending.end_ns <= self.now
            if not moved and not engine_is_done:
                events = [self.arrivals[0]] if self.arrivals else []
                events += [self.pending.end_ns] if self.pending else []
                timer = self.now + max(round(self.loop.patience_s() * 1e9), 1)
                later = [at for at in events if at > self.now]
                self.now = min([timer, *later])
                self.deliver()
            assert self.now < 10**13, "the loop hangs"
        return self


gaps = st.lists(st.integers(0, 60), min_size=1, max_size=40)
good_jobs = st.lists(st.tuples(st.integers(0, 80), st.none()), min_size=1, max_size=20)
any_jobs = st.lists(st.tuples(st.integers(0, 80), st.sampled_from([None, None, None, "boom"])), min_size=1, max_size=20)
policies = st.sampled_from(list(Policy))
deadlines = st.one_of(st.none(), st.integers(1, 100))


@settings(max_examples=300, deadline=None)
@given(policies, gaps, any_jobs, st.integers(0, 40), deadlines)
def test_every_frame_has_one_record_and_presented_ones_are_in_order(policy, gaps, jobs, sink_ms, deadline_ms):
    done = Simulation(policy, gaps, jobs, sink_ms, deadline_ms).run()
    assert sorted(record.id for record in done.records) == list(range(len(gaps)))
    presented = [record for record in done.records if record.outcome is not Outcome.DROPPED]
    assert [record.id for record in presented] == sorted(record.id for record in presented)
    assert [image is CLEAN for image in done.pictures] == [record.outcome is Outcome.DERAINED for record in presented]
    assert all((record.why is None) == (record.outcome is Outcome.DERAINED) for record in done.records)
    for record in presented:
        stamps = (record.captured_ns, record.inference_start_ns, record.inference_end_ns, record.presented_ns)
        known = [stamp for stamp in stamps if stamp is not None]
        assert known == sorted(known)


@settings(max_examples=200, deadline=None)
@given(gaps, any_jobs, st.integers(0, 40), deadlines)
def test_under_every_no_frame_is_lost(gaps, jobs, sink_ms, deadline_ms):
    done = Simulation(Policy.EVERY, gaps, jobs, sink_ms, deadline_ms).run()
    assert [record.id for record in done.records] == list(range(len(gaps)))
    assert all(record.presented_ns is not None for record in done.records)


@settings(max_examples=200, deadline=None)
@given(gaps, any_jobs, st.integers(0, 40))
def test_under_latest_no_picture_is_older_than_two_inferences_and_three_presentations(gaps, jobs, sink_ms):
    done = Simulation(Policy.LATEST, gaps, jobs, sink_ms).run()
    bound = 2 * max(took for took, _ in jobs) + 3 * sink_ms
    assert all(record.presented_ns - record.captured_ns <= bound * MS for record in done.records if record.presented_ns)


@settings(max_examples=200, deadline=None)
@given(gaps, any_jobs, st.integers(0, 40), st.integers(1, 100))
def test_with_a_deadline_a_picture_is_out_by_then_but_for_the_time_of_three_presentations(
    gaps, jobs, sink_ms, deadline_ms
):
    done = Simulation(Policy.LATEST, gaps, jobs, sink_ms, deadline_ms).run()
    bound = (deadline_ms + 3 * sink_ms) * MS + 1  # 1 ns: a deadline is missed once it is past
    assert all(record.presented_ns - record.captured_ns <= bound for record in done.records if record.presented_ns)


@settings(max_examples=100, deadline=None)
@given(policies, st.lists(st.integers(30, 60), min_size=1, max_size=40), st.integers(0, 25))
def test_an_engine_that_keeps_up_derains_every_frame(policy, gaps, took):
    done = Simulation(policy, gaps, [(took, None)], deadline_ms=30).run()
    assert {record.outcome for record in done.records} == {Outcome.DERAINED}


def test_an_engine_that_never_comes_back_leaves_every_frame_raw_and_on_time():
    done = Simulation(Policy.LATEST, [33] * 30, [(5, None)] * 10 + [(10**6, None)], deadline_ms=30).run()
    assert [record.outcome for record in done.records] == [Outcome.DERAINED] * 10 + [Outcome.PASSED_THROUGH] * 20
    assert [record.why for record in done.records[10:]] == [Why.DEADLINE] + [Why.LATE] * 19
    ages = [(record.presented_ns - record.captured_ns) / MS for record in done.records]
    assert max(ages) < 30.1
    assert max(ages[11:]) == 0
    assert done.guard.state is State.LATE


def test_a_fault_puts_its_own_frame_out_raw_and_frames_are_derained_again_after_the_reopening():
    done = Simulation(Policy.LATEST, [33] * 20, [(5, None)] * 5 + [(5, "boom"), (5, None)]).run()
    outcomes = [record.outcome for record in done.records]
    assert outcomes == [Outcome.DERAINED] * 5 + [Outcome.PASSED_THROUGH] * 4 + [Outcome.DERAINED] * 11
    assert [record.why for record in done.records[5:9]] == [Why.FAULT] + [Why.AWAY] * 3  # 100 ms delay, 20 ms opening
    assert (done.guard.faults, done.guard.reopened) == (1, 1)


def test_an_engine_that_always_fails_ends_on_raw_frames_for_good():
    done = Simulation(Policy.LATEST, [33] * 200, [(5, "boom")]).run()
    assert {record.outcome for record in done.records} == {Outcome.PASSED_THROUGH}
    assert done.guard.state is State.RAW
    assert (done.guard.faults, done.guard.reopened) == (6, 5)
    assert done.records[-1].why is Why.GIVEN_UP


def test_a_late_result_counts_in_the_percentiles_of_inference():
    done = Simulation(Policy.LATEST, [33] * 9, [(5, None), (5, None), (90, None), (5, None)], deadline_ms=30).run()
    assert done.loop.tally.latency.summary()["inference"].max == 90


def test_a_result_that_came_too_late_while_the_sink_was_busy_is_not_shown():
    done = Simulation(Policy.LATEST, [0, 10, 40], [(10, None), (30, None), (1, None)], 50, deadline_ms=25).run()
    assert [(record.id, record.why) for record in done.records][:2] == [(0, None), (1, Why.DEADLINE)]
    assert done.pictures[1] is IMAGE


def test_what_was_captured_during_the_warm_up_is_not_counted_late_results_included():
    tally = Tally(from_ns=100)
    tally.add(FrameRecord(0, 0, 99, 99, 100, 101, Outcome.DERAINED))
    tally.add_unused_inference(99, 5)
    assert (tally.outcomes.total(), tally.latency.summary()) == (0, {})
    tally.add(FrameRecord(1, 90, 100, 101, 103, 104, Outcome.DERAINED))
    tally.add_unused_inference(100, 5)
    assert tally.outcomes.total() == 1
    assert tally.latency.total("inference") == 2 + 5


def test_a_late_result_is_told_to_who_watches():
    simulation = Simulation(Policy.LATEST, [33] * 9, [(5, None), (90, None), (5, None)], deadline_ms=30)
    simulation.run()
    assert simulation.unused == [(66 * MS, 90 * MS)]


def test_a_sink_that_fails_on_every_frame_is_told_of_ever_less_often(caplog):
    simulation = Simulation(Policy.LATEST, [33] * 20, [(5, None)])
    simulation.write = lambda image, captured_ns, raw: (_ for _ in ()).throw(OSError("full"))
    simulation.location = "out"
    simulation.run()
    assert [record.why for record in simulation.records] == [Why.SINK] * 20
    told = [message.split(":")[0] for message in caplog.messages]
    assert told == [f"frame {count - 1} lost, {count} so far" for count in (1, 2, 4, 8, 16)]


def test_the_figures_of_now_stay_inside_what_was_seen_and_fall_when_nothing_comes_any_more():
    tally = Tally()
    for index in range(30):
        at, age = index * 33 * MS, (500 if index == 7 else 20) * MS
        tally.add(FrameRecord(index, at, at, at, at, at + age, Outcome.DERAINED))
    last = 29 * 33 * MS + 20 * MS
    now = tally.status(last, "deraining", "open")
    assert now.p50_ms == 20
    assert 20 < now.p99_ms < 500
    assert now.fps == pytest.approx(1000 / 33, rel=0.02)
    assert tally.status(last + 3600 * 10**9, "deraining", "lost").fps < 0.01
