"""A model of a GPU as far as the look-back protocol sees it: blocks, threads, and slow memory.

It runs the protocol's own functions, one thread of the model at a time, and decides at every access
to memory which thread continues. It is as adversarial as a device may be: blocks start in any
order, only some of them at a time; a thread may be left waiting for as long as another can run;
and a store becomes visible to other blocks at any later moment, in any order relative to stores
to other words.
"""

import random
import threading
from collections import defaultdict, deque


class Deadlock(Exception):
    """No thread can continue."""


class _Abandoned(BaseException):
    """Raised in the threads of a model to end them when the model stops early."""


class _Actor:
    """A thread of the model, which runs only while the model waits for it."""

    def __init__(self, device, block, body):
        self.block, self.awaits, self.done, self.error = block, None, False, None
        self.polled = None
        self.turn, self.device = threading.Semaphore(0), device
        self.thread = threading.Thread(target=self._run, args=(body,), daemon=True)
        self.thread.start()

    def _run(self, body):
        try:
            self.pause()
            body()
        except _Abandoned:
            pass
        except Exception as error:
            self.error = error
        self.done = True
        self.device.back.release()

    def pause(self):
        """Give the turn back to the model, and wait until this thread gets it again."""
        self.device.back.release()
        self.turn.acquire()
        if self.device.abandoned:
            raise _Abandoned

    def go_on(self):
        self.turn.release()
        self.device.back.acquire()
        if self.error:
            raise self.error


class Device:
    """A device that runs a grid of blocks, at most ``resident`` of them at a time.

    Args:
        resident: the most blocks that run at the same time
        seed: seed of every choice that the model makes
        lazy: how long stores stay invisible, from 0 (not at all) to 0.99 (long)
    """

    def __init__(self, resident, seed, lazy=0.9):
        self.resident, self.lazy = resident, lazy
        self.random = random.Random(seed)
        self.words = defaultdict(int)
        self.pending = deque()  # stores invisible to other blocks: (block, address, word)
        self.back, self.abandoned, self.current = threading.Semaphore(0), False, None

    # Methods that threads of the model call.

    def take_ticket(self, address):
        self.current.pause()
        self.words[address] += 1
        return self.words[address] - 1

    def load_words(self, address, count):
        """Return consecutive words, each as this thread sees it at the moment of its own load."""
        words = []
        for at in range(address, address + 8 * count, 8):
            self.current.pause()
            words.append(self._seen(at))
        if 0 in words and self.current.polled == address:  # polled twice: wait for the word
            self.current.awaits = ("word", address + 8 * words.index(0))
        self.current.polled = address
        return tuple(words)

    def _seen(self, address):
        mine = (self.current.block, address)
        own = [word for block, at, word in self.pending if (block, at) == mine]
        return own[-1] if own else self.words[address]

    def store_word(self, address, word):
        self.current.pause()
        self.pending.append((self.current.block, address, word))

    def fence(self):
        """Make the block's earlier stores visible before any that follow."""
        self.current.pause()
        for store in [store for store in self.pending if store[0] == self.current.block]:
            self._commit(store)

    def barrier(self):
        me = self.current
        me.block.arrived += 1
        me.awaits = ("barrier", me.block.passed)
        if me.block.arrived == me.block.threads:
            me.block.arrived, me.block.passed = 0, me.block.passed + 1
        me.pause()

    def shared_access(self):
        self.current.pause()

    # The scheduler.

    def run(self, blocks, threads, body):
        """Run ``body(block, thread)`` for all threads of all blocks, until all have finished."""
        waiting = [Block(number, threads) for number in range(blocks)]
        self.random.shuffle(waiting)
        actors = []
        try:
            while waiting or actors:
                running = {actor.block for actor in actors}
                while waiting and len(running) < self.resident:
                    block = waiting.pop()
                    running.add(block)
                    for thread in range(threads):
                        actor = _Actor(self, block, lambda b=block, t=thread: body(b, t))
                        self.back.acquire()
                        actors.append(actor)
                self._one_event(actors)
                actors = [actor for actor in actors if not actor.done]
        finally:
            self.abandoned = True
            for actor in actors:
                actor.turn.release()
                actor.thread.join()
            self.abandoned = False
        for store in list(self.pending):
            self._commit(store)

    def _one_event(self, actors):
        able = [actor for actor in actors if self._able(actor)]
        if self.pending and (not able or self.random.random() > self.lazy):
            store = self.random.choice(self.pending)
            # Two stores to one word keep their order.
            self._commit(next(s for s in self.pending if s[1] == store[1]))
        elif able:
            # The same few threads are preferred for a while, so that the others fall far behind.
            self.current = able[min(int(self.random.expovariate(0.7)), len(able) - 1)]
            if self.random.random() < 0.05:
                self.random.shuffle(actors)
            self.current.awaits = None
            self.current.go_on()
        else:
            raise Deadlock(f"{len(actors)} threads wait for each other")

    def _able(self, actor):
        if actor.awaits is None:
            return True
        what, which = actor.awaits
        if what == "barrier":
            return actor.block.passed > which
        return self.words[which] != 0

    def _commit(self, store):
        self.pending.remove(store)
        self.words[store[1]] = store[2]


class Block:
    """A block of threads and its shared memory, ``room``."""

    def __init__(self, number, threads):
        self.number, self.threads = number, threads
        self.arrived = self.passed = 0
        self.room, self.ticket = {}, None
