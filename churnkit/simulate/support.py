"""Tickets, their messages, and surveys: where causes are first heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from churnkit.simulate import texts
from churnkit.simulate.causes import States, observed
from churnkit.simulate.contracts import Contracts
from churnkit.simulate.frames import Frame, frame, ids, keep, maybe, words
from churnkit.simulate.people import scatter, slow
from churnkit.simulate.world import DAY, NAT, Array, World, days, labels

_FELT = {"champion_left": -0.4, "bug_burst": -1.1, "slow_support": -1.0, "price_rise": -1.0, "never_adopted": -0.8,
         "growth": 0.4}
"""What the causes do to survey scores."""
_ANGRY, _WORRIED, _PLAIN, _HAPPY = range(4)


@dataclass(frozen=True)
class Asked:
    """What was asked: one value a ticket, in the order of time."""

    account: Array
    opened: Array
    category: Array
    mood: Array
    content: Array
    """How content the customer is, about normal; `mood` in steps."""
    slowness: Array


@dataclass(frozen=True)
class Served:
    """How it was served, whether or not that lies within the book; times are NaT where it never happened."""

    bot: Array
    """Answered by a bot first."""
    replied: Array
    handed_over: Array
    human_requested: Array
    escalated: Array
    reopened: Array
    resolved: Array
    rated: Array


def tickets(world: World, states: States, deal: Contracts) -> Asked:
    """Draws the questions: how many, on what, in which mood."""
    dice = world.dice("tickets")
    bugs, slow_, price = (states.driver(name) for name in ("bug_burst", "slow_support", "price_rise"))
    lost, broke = states.driver("never_adopted"), states.driver("payment_trouble")
    dice.standard_normal(world.size)  # each account's own, which other courses of things share
    base = 0.06 * world.seats**0.4 * np.exp(0.3 * world.own("tickets", np.random.Generator.standard_normal))
    rate = base * (1 + 4.5 * bugs + 0.6 * slow_ + 0.8 * price + 0.4 * lost + 0.5 * broke)
    counts = dice.poisson(observed(rate, world.clock.weeks))
    account, opened, week = scatter(world, deal, counts, "tickets_at")
    order = np.argsort(opened, kind="stable")
    account, opened, week = account[order], opened[order], week[order]
    size = len(account)
    bugs, slow_, price, lost, broke = (state[week, account] for state in (bugs, slow_, price, lost, broke))
    pull = np.stack([1.0 + 9 * bugs, 0.4 + 3 * price + 3 * broke, 0.8 + 2 * lost, *np.full((3, size), 0.4)])
    category = (np.cumsum(pull / pull.sum(axis=0), axis=0) < dice.random(size)).sum(axis=0).clip(max=len(pull) - 1)
    content = (0.5 * world.temper[account] - 1.0 * bugs - 0.9 * slow_ - 0.8 * price - 0.3 * lost
               + 0.7 * dice.standard_normal(size))
    return Asked(account, opened, category, np.digitize(content, [-1.5, -0.5, 1.0]), content, slow_)


def serve(world: World, asked: Asked) -> Served:
    """Draws replies, hand-overs, calls for a person, escalations, solutions, reopenings and ratings."""
    dice, size = world.dice("serve"), len(asked.opened)
    slowness, angry, sad = np.minimum(asked.slowness, 1.6), asked.mood == _ANGRY, asked.mood <= _WORRIED

    def chance(share: Array | float) -> Array:
        return np.asarray(dice.random(size) < share)

    def after(start: Array, hours: Array) -> Array:
        return np.asarray(start + days(hours / 24))

    bot = chance(0.35)
    handed = bot & chance(0.45 + 0.1 * sad)
    reply = np.exp(np.log(3.0) + 1.9 * slowness + 0.6 * dice.standard_normal(size))
    replied = after(asked.opened, np.where(bot, 0.02, np.minimum(reply, 400)))
    wants = bot & chance(0.08 + 0.2 * angry + 0.1 * sad)
    work = np.exp(np.log(26.0) + 0.5 * slowness + 0.4 * (asked.category == 0) + dice.standard_normal(size))
    solved = after(replied, np.where(bot & ~handed, 0.5 + 5 * dice.random(size), np.minimum(work, 1500)))
    between = after(asked.opened, (solved - asked.opened) / DAY * 24 * (0.2 + 0.6 * dice.random(size)))
    again = chance(0.04 + 0.08 * sad + 0.06 * (asked.category == 0))
    reopened = after(solved, 2 + 60 * dice.random(size))
    resolved = np.where(again, after(reopened, 4 + 70 * dice.random(size)), solved)
    return Served(
        bot, replied, handed_over=np.where(handed, after(replied, 0.1 + 4 * dice.random(size)), NAT),
        human_requested=np.where(wants, after(replied, 0.05 + 2 * dice.random(size)), NAT),
        escalated=np.where(chance(0.02 + 0.1 * angry + 0.06 * sad), between, NAT),
        reopened=np.where(again, reopened, NAT), resolved=resolved,
        rated=np.where(chance(0.4), after(resolved, 0.2 + 48 * dice.random(size)), NAT),
    )


def support_tickets(world: World, asked: Asked, served: Served) -> Frame:
    """The table of tickets, as the book's end sees them: what comes later is still missing."""
    dice, end, size = world.dice("support_tickets"), world.clock.end, len(asked.opened)
    slowness, again = np.minimum(asked.slowness, 1.5), ~np.isnat(served.reopened)
    score = 3.9 + 0.7 * asked.content - 0.8 * slowness - 0.5 * again + 0.5 * dice.standard_normal(size)
    ease = 5.4 + 0.6 * asked.content - 0.8 * slowness - 0.7 * again + 0.9 * dice.standard_normal(size)
    rated = served.rated < end
    human = np.isnat(served.handed_over) & served.bot
    subjects, starts, counts = texts.listed(texts.SUBJECTS)
    subject = np.array(starts)[asked.category] + dice.integers(0, 12, size) % np.array(counts)[asked.category]
    channel = np.where(served.bot, dice.integers(1, 3, size), dice.choice(4, size, p=[0.5, 0.2, 0.15, 0.15]))
    urgency = 1 + (asked.mood == _ANGRY) + (asked.mood <= _WORRIED) - (dice.random(size) < 0.3)
    moves = dice.poisson(0.25 + 0.5 * slowness + 0.4 * ~np.isnat(served.escalated))
    made = labels(f"{world.mark}T", size)

    def seen(at: Array) -> Array:
        return np.where(at < end, at, NAT)

    return frame(
        "support_tickets", ticket_id=pa.array(made), account_id=ids(world.ids, asked.account), opened_at=asked.opened,
        channel=words(("email", "portal", "chat", "phone"), channel), category=words(texts.CATEGORIES, asked.category),
        priority=words(("low", "normal", "high", "urgent"), urgency), first_replied_at=seen(served.replied),
        escalated_at=seen(served.escalated), human_requested_at=seen(served.human_requested),
        reopened_at=seen(served.reopened), reassigned_count=moves, resolved_at=seen(served.resolved),
        handled_by=words(("bot", "human"), np.where(human, 0, 1)), handed_over_at=seen(served.handed_over),
        csat=maybe(np.clip(np.round(score), 1, 5), rated),
        effort=maybe(np.clip(np.round(ease), 1, 7), rated & (dice.random(size) < 0.7)), rated_at=seen(served.rated),
        subject=words(subjects, subject), body=words(texts.bodies()[0], _body(world, asked)),
        recorded_at=slow(asked.opened, end, dice),
        url=pa.array([f"https://support.example.com/{one}" for one in made.tolist()]),
    )


def _body(world: World, asked: Asked) -> Array:
    """Which of the texts is each ticket's first message."""
    first, many = _table(texts.bodies()[1])
    where = world.language[asked.account], asked.mood, asked.category
    pick = world.dice("bodies").integers(0, 1 << 30, len(asked.opened))
    return np.asarray(first[where] + pick % many[where])


def _table(where: dict[tuple[int, int, int], tuple[int, int]]) -> tuple[Array, Array]:
    """Starts and counts of texts as arrays indexed by (language, mood, category)."""
    shape = tuple(1 + max(key[axis] for key in where) for axis in range(3))
    first, many = np.zeros(shape, dtype=int), np.ones(shape, dtype=int)
    for key, (start, count) in where.items():
        first[key], many[key] = start, count
    return first, many


def messages(world: World, asked: Asked, served: Served) -> Frame:
    """What was written in each ticket: the question, the answer, often a second round, and the solution."""
    dice, end, size = world.dice("messages"), world.clock.end, len(asked.opened)
    body, again = texts.bodies()[0], texts.listed(texts.AGAIN)
    every: list[str] = []
    starts = []
    for group in (body, texts.REPLIES, texts.BOT_REPLIES, texts.SOLVED, again[0]):
        starts.append(len(every))
        every += group
    pick = dice.integers(0, 1 << 30, (3, size))
    answer = np.where(served.bot, starts[2] + pick[0] % len(texts.BOT_REPLIES),
                      starts[1] + pick[0] % len(texts.REPLIES))
    second = starts[4] + np.array(again[1])[asked.mood] + pick[1] % np.array(again[2])[asked.mood]
    between = served.replied + days((served.resolved - served.replied) / DAY * (0.1 + 0.7 * dice.random(size)))
    writes = dice.random(size) < 0.35 + 0.3 * (asked.mood <= _WORRIED)
    at = np.concatenate([asked.opened, served.replied, np.where(writes, between, NAT), served.resolved])
    text = np.concatenate([_body(world, asked), answer, second, starts[3] + pick[2] % len(texts.SOLVED)])
    author = np.concatenate([np.zeros(size, int), np.where(served.bot, 2, 1), np.zeros(size, int), np.ones(size, int)])
    ticket = np.tile(np.arange(size), 4)
    there = at < end
    at, text, author, ticket = at[there], text[there], author[there], ticket[there]
    return keep(frame(
        "ticket_messages", ticket_id=ids(labels(f"{world.mark}T", size), ticket),
        account_id=ids(world.ids, asked.account[ticket]), occurred_at=at,
        author=words(("customer", "agent", "bot"), author), text=words(every, text), recorded_at=slow(at, end, dice),
    ))


def surveys(world: World, states: States, deal: Contracts) -> Frame:
    """NPS two or three times a year, and satisfaction and effort now and then; scores follow mood, and some say why."""
    dice, clock = world.dice("surveys"), world.clock
    counts = dice.poisson(np.full((world.size, clock.weeks), 0.08))
    account, at, week = scatter(world, deal, counts, "surveys_at")
    size = len(at)
    felt = 0.8 * world.temper[account] + 0.5 * dice.standard_normal(size)
    for name, weight in _FELT.items():
        felt += weight * states.driver(name)[week, account]
    kind = dice.choice(3, size, p=[0.6, 0.25, 0.15])
    middle, slope = np.array([7.6, 3.9, 5.0])[kind], np.array([1.7, 0.8, 0.9])[kind]
    score = np.clip(np.round(middle + slope * felt), np.array([0, 1, 1])[kind], np.array([10, 5, 7])[kind])
    comments, starts, many = texts.listed(texts.COMMENTS)
    mood = np.digitize(felt, [-1.5, -0.5, 0.9])
    said = np.array(starts)[mood] + dice.integers(0, 12, size) % np.array(many)[mood]
    return keep(frame(
        "surveys", account_id=ids(world.ids, account), responded_at=at,
        kind=words(("nps", "csat", "ces"), kind), score=score,
        text=words(comments, np.where(dice.random(size) < 0.4, said, -1)),
        recorded_at=slow(at, clock.end, dice, late=0.03),
    ))
