"""Channels: nothing lost, nothing doubled, and no thread that waits for ever."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.runtime.pipeline.threads import Channel, Stopped, Thread


@settings(max_examples=30)
@given(items=st.lists(st.integers(), max_size=30))
def test_everything_arrives_in_order(items):
    channel = Channel()

    def send():
        for item in items:
            channel.put(item)

    thread = Thread(send)
    thread.start()
    assert [channel.get() for _ in items] == items
    thread.join()
    assert not channel.ready and channel.dropped == 0


def test_put_waits_for_room():
    channel = Channel()
    channel.put(1)
    thread = Thread(lambda: channel.put(2))
    thread.start()
    assert not thread._done.wait(0.05)
    assert channel.get() == 1 and channel.get() == 2
    thread.join()
    assert thread.done


def test_latest_keeps_the_newest_and_counts_the_others():
    channel = Channel(latest=True)
    for item in range(5):
        channel.put(item)
    assert channel.dropped == 4 and channel.get() == 4
    channel.put(5)
    thread = Thread(lambda: channel.put(None, wait=True))  # the end must not push out the last
    thread.start()
    assert channel.get() == 5 and channel.get() is None
    thread.join()
    assert channel.dropped == 4


def test_stop_ends_both_ends():
    channel, ends = Channel(), []
    channel.put(1)

    def put():
        try:
            channel.put(2)
        except Stopped:
            ends.append("put")

    thread = Thread(put)
    thread.start()
    channel.stop()
    thread.join()
    with pytest.raises(Stopped):
        channel.get()
    assert ends == ["put"] and channel.ready


def test_several_channels_wake_one_waiter():
    changed = threading.Condition()
    channels = [Channel(changed) for _ in range(3)]
    thread = Thread(lambda: channels[2].put("here"))
    thread.start()
    with changed:
        assert changed.wait_for(lambda: any(each.ready for each in channels), timeout=60)
    assert [each.ready for each in channels] == [False, False, True]
    thread.join()


def test_a_worker_that_never_started_is_not_waited_for():
    Thread(lambda: None).join()
