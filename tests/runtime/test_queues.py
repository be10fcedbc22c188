"""Queues of frames under both policies."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.runtime.frames import Frame
from derain.runtime.queues import DEPTH, FrameQueue, Policy
from derain.runtime.records import Why

IMAGE = np.zeros((1, 1, 3), np.uint8)
PUTS_AND_TAKES = st.lists(st.booleans(), max_size=60)


def frame(number):
    return Frame(number, number, IMAGE, number - 5)


@given(PUTS_AND_TAKES)
def test_under_latest_a_take_gives_the_newest_frame_and_all_others_count_as_dropped(puts):
    queue, put, taken, dropped = FrameQueue(Policy.LATEST), 0, [], []
    for is_put in puts:
        if is_put:
            assert queue.put(frame(put))
            put += 1
        elif (got := queue.take()) is not None:
            assert got.id == put - 1
            taken.append(got.id)
        assert len(queue) <= DEPTH[Policy.LATEST]
    told = queue.take_dropped()
    assert {(why, frame.captured_ns - frame.asked_ns, frame.image.size) for frame, why in told} <= {(Why.NEWER, 5, 0)}
    dropped = [frame.id for frame, _ in told]
    waiting = [got.id] if (got := queue.take()) else []
    assert sorted(taken + dropped + waiting) == list(range(put))
    assert taken == sorted(taken)
    assert dropped == sorted(dropped)


@given(PUTS_AND_TAKES)
def test_under_every_frames_come_out_in_order_and_none_is_lost(puts):
    queue, put, taken = FrameQueue(Policy.EVERY), 0, []
    for is_put in puts:
        if is_put and len(queue) < DEPTH[Policy.EVERY]:
            assert queue.put(frame(put))
            put += 1
        elif (got := queue.take()) is not None:
            taken.append(got.id)
    while (got := queue.take()) is not None:
        taken.append(got.id)
    assert taken == list(range(put))
    assert queue.take_dropped() == []


def test_under_every_a_put_waits_for_room_and_under_latest_it_does_not():
    full = FrameQueue(Policy.EVERY)
    for number in range(DEPTH[Policy.EVERY]):
        full.put(frame(number))
    done = threading.Event()
    thread = threading.Thread(target=lambda: (full.put(frame(9)), done.set()))
    thread.start()
    assert not done.wait(0.1)
    assert full.take().id == 0
    assert done.wait(5)
    thread.join()
    assert [full.take().id, full.take().id] == [1, 9]

    latest = FrameQueue(Policy.LATEST)
    for number in range(100):
        latest.put(frame(number))
    assert latest.take().id == 99


@pytest.mark.parametrize("policy", list(Policy))
def test_a_closed_queue_refuses_frames_frees_who_waits_and_still_gives_what_it_has(policy):
    calls = []
    queue = FrameQueue(policy, lambda: calls.append(None))
    for number in range(DEPTH[policy]):
        queue.put(frame(number))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(queue.put(frame(9))))
    if policy is Policy.EVERY:
        thread.start()
    queue.close()
    if policy is Policy.EVERY:
        thread.join(5)
        assert answers == [False]
    assert not queue.put(frame(10))
    assert not queue.ended
    assert [queue.take().id for _ in range(DEPTH[policy])] == list(range(DEPTH[policy]))
    assert queue.ended
    assert queue.take() is None
    assert len(calls) == DEPTH[policy] + 1


@pytest.mark.parametrize("policy", Policy)
def test_a_broken_frame_takes_no_place_waits_for_none_and_is_told_before_the_end(policy):
    queue = FrameQueue(policy)
    for number in range(DEPTH[policy]):
        queue.put(frame(number))
    assert queue.put(Frame(9, 90, np.empty(0, np.uint8), 90))
    queue.close()
    assert [queue.take().id for _ in range(DEPTH[policy])] == list(range(DEPTH[policy]))
    assert not queue.ended
    assert [(frame.id, why) for frame, why in queue.take_dropped()] == [(9, Why.BROKEN)]
    assert queue.ended
