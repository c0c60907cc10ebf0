import os
import threading
import time

import pytest
import torch

from metarl.parallel import map_on_threads


def test_results_come_in_order_from_threads_that_stay():
    def who(i):
        time.sleep(0.01 * (3 - i))
        return i, threading.get_ident(), torch.get_num_threads()

    calls = [map_on_threads(2, who, range(4)) for _ in range(3)]
    assert [[i for i, _, _ in call] for call in calls] == [[0, 1, 2, 3]] * 3
    assert len({thread for call in calls for _, thread, _ in call}) == 2
    assert {threads for call in calls for _, _, threads in call} == {1}


def test_an_error_is_raised_when_nothing_is_being_worked_on_any_more():
    begun, ended = [], []

    def work(i):
        begun.append(i)
        if i == 0:
            raise ValueError("the first")
        time.sleep(0.05)
        ended.append(i)

    with pytest.raises(ValueError, match="the first"):
        map_on_threads(2, work, range(6))
    assert sorted(begun) == sorted([0, *ended])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_has_threads_of_its_own():
    both_work = [0.02, 0.02]  # s: too long for one thread to be idle again when the second part comes
    map_on_threads(2, time.sleep, both_work)
    child = os.fork()
    if child == 0:
        os._exit(0 if map_on_threads(2, time.sleep, both_work) == [None, None] else 1)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits for threads that it does not have")
    assert status == 0
