"""The look-back protocol of the CUDA kernels, on an adversarial model of a device.

The kernels compile the same functions that run here. Numbers are integers modulo a prime, so a
result is either exactly right or wrong.
"""

import sys
from types import SimpleNamespace

import pytest
from devices import Deadlock, Device

pytest.importorskip("numba.cuda")
from lrscan.core import algebra  # noqa: E402
from lrscan.cuda.single_pass import lookback  # noqa: E402

PRIME = 2**31 - 1
INFINITE = PRIME  # not a residue; represents a product that overflowed
FLAG = 1 << 32
TILES, COLUMNS, WIDTH, THREADS = 7, 4, 2, 3


@pytest.fixture(autouse=True)
def quick_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def compose(P1, R1, P2, R2):
    if INFINITE in (P1, P2):
        return INFINITE, 0
    return tuple(value % PRIME for value in algebra.compose(P1, R1, P2, R2))


def step(P, R, h):
    return INFINITE if INFINITE in (P, h) else algebra.step(P, R, h) % PRIME


# Two words per number, so that one can be visible without the other.
WORDS = lookback.WordCounts(2, 2)


def words_of(value):
    return value & 0xFFFF | FLAG, value >> 16 | FLAG


def value_of(words):
    return (words[0] & 0xFFFF) | (words[1] & 0xFFFF) << 16


class Scan:
    """One launch of the protocol: every tile finds its initial state in every column."""

    def __init__(self, device, radix, overflowing=(), **mutations):
        self.device, self.radix, self.overflowing = device, radix, overflowing
        columns = range(COLUMNS)
        self.maps = [[(7 * i + 3 * j + 2, i + 5 * j + 1) for j in columns] for i in range(TILES)]
        self.carries = {}
        self.by_ticket = mutations.get("by_ticket", True)
        store = mutations.get("store_word", lambda device, at, word: device.store_word(at, word))
        load = mutations.get("load_words", lambda device, at, count: device.load_words(at, count))

        def store_words(at, words):
            for i, word in enumerate(words):
                store(device, at + lookback.WORD_BYTES * i, word)

        self.look_back = lookback.make_look_back(
            WORDS,
            SimpleNamespace(
                store_words=store_words,
                load_words=lambda at, count: load(device, at, count),
                complete=all,
                words_of=words_of,
                P_of=value_of,
                R_of=value_of,
                finite=lambda P: P != INFINITE,
                divide=divmod,
            ),
            SimpleNamespace(step=step, compose=compose, one=1, zero=0, zero_a=0),
            self,
            mutations.get("barrier", device.barrier),
            lambda function: function,
        )

    def map_of(self, job, j):
        P, R = self.maps[job.index][job.first + j]
        return (INFINITE if job.index in self.overflowing else P), R

    def initial_state(self, job, j):
        return 11 + job.first + j

    def put_earlier(self, job, i, P, R):
        self.device.shared_access()
        job.block.room[i] = P, R

    def earlier(self, job, i):
        self.device.shared_access()
        return job.block.room.get(i, (0, 0))

    def put_start(self, job, j, h):
        self.carries[job.index, job.first + j] = h

    def redo(self, job, j, back, h):
        for i in range(job.index - back, job.index):
            h = step(*self.maps[i][job.first + j], h)
        self.put_start(job, j, h)
        return step(*self.maps[job.index][job.first + j], h)

    def body(self, block, thread):
        strips = COLUMNS // WIDTH
        if thread == 0:
            block.ticket = self.device.take_ticket(0) if self.by_ticket else block.number
        self.device.barrier()
        index, strip = divmod(block.ticket, strips)
        job = SimpleNamespace(block=block, index=index, first=strip * WIDTH)
        chain = lookback.Chain(
            lookback.TICKET_BYTES, self.radix, index, TILES, COLUMNS, job.first, WIDTH
        )
        self.look_back(job, chain, thread, THREADS)

    def run(self):
        self.device.run(TILES * COLUMNS // WIDTH, THREADS, self.body)
        return self

    def is_right(self):
        for j in range(COLUMNS):
            h = 11 + j
            for i in range(TILES):
                if self.carries.get((i, j)) != h:
                    return False
                h = step(*self.maps[i][j], h)
        return True


@pytest.mark.parametrize("radix", [1, 2, 3, TILES])
@pytest.mark.parametrize("resident", [1, 2, 5, 100])
def test_every_tile_finds_its_initial_state_however_few_blocks_run(resident, radix):
    for seed in range(3):
        lazy = (0.2, 0.9, 0.99)[seed]
        assert Scan(Device(resident, seed, lazy), radix).run().is_right()


@pytest.mark.parametrize("radix", [1, 3])
def test_a_tile_whose_product_overflows_passes_its_state_on(radix):
    for seed in range(4):
        scan = Scan(Device(3 + 20 * (seed % 2), seed), radix, overflowing=(0, 3, 4))
        assert scan.run().is_right()


def test_the_workspace_holds_every_word_and_no_more():
    for radix in (1, 2, 3, TILES):
        device = Device(100, 0)
        Scan(device, radix).run()
        used = [address for address, word in device.words.items() if word]
        size = lookback.workspace_bytes(WORDS, TILES, COLUMNS, radix)
        assert 0 <= min(used) and max(used) + 8 <= size
        if radix < TILES:  # the states between groups are stored last
            assert max(used) + 8 == size
        assert all(address % 8 == 0 for address in used)


def caught(**how):
    """Return True if some order of events shows that a protocol is wrong."""
    radix, resident = how.pop("radix", 3), how.pop("resident", 100)
    for seed in range(12):
        try:
            if not Scan(Device(resident, seed), radix, **how).run().is_right():
                return True
        except Deadlock:
            return True
    return False


def store_apart(fenced):
    """Return mutations that store value and flag in separate words, with or without a fence."""

    def store_word(device, address, word):
        device.store_word(("value", address), word)
        if fenced:
            device.fence()
        device.store_word(address, FLAG)

    def load_words(device, address, count):
        flags = device.load_words(address, count)
        places = [address + lookback.WORD_BYTES * i for i in range(count)]
        values = (device.words[("value", place)] | FLAG for place in places)
        return tuple(value if flag else 0 for flag, value in zip(flags, values, strict=True))

    return {"store_word": store_word, "load_words": load_words}


def store_early(device, address, word):
    device.store_word(address, FLAG)
    device.store_word(address, word)


@pytest.mark.parametrize("radix", [1, 3])
def test_a_missing_fence_would_be_caught(radix):
    """This is the reason why a word contains its flag."""
    assert caught(radix=radix, **store_apart(fenced=False))
    assert not caught(radix=radix, **store_apart(fenced=True))


@pytest.mark.parametrize("radix", [1, 3])
def test_a_flag_published_early_would_be_caught(radix):
    assert caught(radix=radix, store_word=store_early)


def test_a_missing_barrier_would_be_caught():
    assert caught(barrier=lambda: None)


@pytest.mark.parametrize("radix", [1, 3])
def test_tiles_numbered_by_block_instead_of_ticket_would_be_caught(radix):
    assert caught(radix=radix, resident=2, by_ticket=False)


@pytest.mark.parametrize("radix", [1, 3])
def test_words_left_by_an_earlier_launch_would_be_caught(radix):
    """A CUDA graph must therefore clear them at every replay."""
    wrong = 0
    for seed in range(4):
        device = Device(100, seed)
        Scan(device, radix).run()
        device.words[0] = 0  # the tickets, but not the words
        again = Scan(device, radix)
        again.maps = [[(P + 1, R + 1) for P, R in row] for row in again.maps]
        wrong += not again.run().is_right()
        device.words.clear()
        assert Scan(device, radix).run().is_right()
    assert wrong
