"""Who runs next."""

from emuvisor.host.run_queue import RunQueue


def picks(queue, pcpu, count):
    return [queue.pick(pcpu) for _ in range(count)]


def test_first_come_first_served():
    queue = RunQueue(1)
    for name in "abc":
        queue.add(name)
    assert len(queue) == 3
    assert picks(queue, 0, 4) == ["a", "b", "c", None]
    assert len(queue) == 0


def test_new_guests_go_where_the_fewest_wait():
    queue = RunQueue(2)
    assert [queue.add(name) for name in "abcd"] == [0, 1, 0, 1]
    assert picks(queue, 0, 2) == ["a", "c"]
    assert picks(queue, 1, 2) == ["b", "d"]


def test_a_guest_comes_back_to_its_pcpu():
    queue = RunQueue(2)
    for name in "abc":
        queue.add(name, 1)
    queue.add("d", 0)
    assert picks(queue, 1, 3) == ["a", "b", "c"]
    assert queue.pick(0) == "d"


def test_no_pcpu_is_idle_while_a_guest_waits():
    queue = RunQueue(3)
    queue.add("a", 0)
    queue.add("b", 1)
    queue.add("c", 1)
    assert queue.pick(2) == "b", "from the longest queue"
    assert queue.pick(2) == "a"
    assert picks(queue, 2, 2) == ["c", None]


def test_a_guest_whose_pcpu_is_coming_is_left_to_it():
    queue = RunQueue(2)
    assert queue.add("a", 1) == 1
    assert queue.pick(0, coming={1}) is None
    assert queue.add("b", 1) == 1
    assert picks(queue, 0, 1) == ["a"], "nobody is coming"
    queue.add("c", 1)
    assert queue.pick(0, coming={1}) == "b", "it takes only one"
    assert queue.pick(0, coming={1}) is None
    assert queue.pick(1, coming={1}) == "c"


def test_nobody_gets_more_for_being_alone_on_a_pcpu():
    queue = RunQueue(2)
    queue.add("alone", 0)
    for name in "abcde":
        queue.add(name, 1)
    turns = dict.fromkeys(["alone", *"abcde"], 0)
    for _ in range(60):
        running = [(pcpu, queue.pick(pcpu)) for pcpu in range(2)]
        for pcpu, name in running:
            turns[name] += 1
            queue.add(name, pcpu)
    assert min(turns.values()) >= 15
    assert max(turns.values()) <= 25


def test_remove():
    queue = RunQueue(2)
    for name in "abcd":
        queue.add(name)
    queue.remove("c")
    queue.remove("nobody")
    assert picks(queue, 0, 4) == ["a", "b", "d", None]


def test_round_robin_is_fair():
    queue = RunQueue(1)
    for name in "abc":
        queue.add(name, 0)
    order = []
    for _ in range(9):
        name = queue.pick(0)
        order.append(name)
        queue.add(name, 0)
    assert order == list("abc") * 3
