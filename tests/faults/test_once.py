"""Each call of the store that a verb makes under an idempotency key fails or runs twice, and the verb is repeated.

Whatever its caller was told the first time: the effect is one, and the answer the one that it would have been.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from msgspec import structs

from faults.test_every_call import Stage, facts, shown, staging, told
from faults.verbs import CLAIMS, CREATES, SETTLES, UPDATES, Bench, Verb
from hookline import Claimed, EmbeddedStore, Outcome
from invariants import read_keyspace
from proxy import LOSE_CALL, LOSE_REPLY, TWICE_FIRST, TWICE_LAST

COUNTED = ("start what is held", "complete what was lost")
"""Refusals that are counted: each repeat is one more."""
VERBS = {
    name: verb
    for name, verb in (CREATES | UPDATES | CLAIMS | SETTLES).items()
    if verb.partitions == 1 and not (verb.leaves or verb.flushed or name in COUNTED)
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(store: EmbeddedStore) -> AsyncIterator[Stage]:
    async with staging(store, 2.0) as stage:
        yield stage


def under_a_key(verb: Verb) -> Verb:
    """The same verb, by a view of the datastore that is new each time."""

    async def run(bench: Bench) -> Any:
        return await verb.run(replace(bench, datastore=bench.datastore.once("k", body=b"the same")))

    return replace(verb, run=run)


def told_again(answer: Any) -> Any:
    """What a repeat has in common with the first time: of a deleted item nothing is kept."""
    match answer:
        case Claimed():
            return structs.replace(answer, replayed=False)
        case Outcome(item=None):
            return answer.word, answer.key, answer.sort_field
        case Outcome():
            return answer.word, answer.key, answer.sort_field, answer.version, answer.item
        case tuple() | list():
            return [told_again(each) for each in answer]
    return answer


@pytest.mark.parametrize("fault", [LOSE_CALL, LOSE_REPLY, TWICE_FIRST, TWICE_LAST])
@pytest.mark.parametrize("name", VERBS)
async def test_a_repeat_has_the_one_effect_and_the_same_answer(stage: Stage, name: str, fault: bytes) -> None:
    verb = under_a_key(VERBS[name])
    whole = await stage.play(verb)
    for place in range(len(whole.commands)):
        played = await stage.play(verb, fault, place)
        again, error = await told(verb, played.bench)
        assert error is None
        if "delete" in name or name == "run":
            assert again is not None
        else:
            assert told_again(shown(again)) == told_again(shown(whole.answer))
        assert facts(await read_keyspace(stage.raw)) == whole.after
