"""Operations under an id of their own: what is kept of their answers, and to whom it is given again."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from hookline.call import Call
from hookline.codec import unpack_answer
from hookline.once import Once
from jobs import WAITING
from scripts import KEY, TAG, Scripts, calling, snapshot, unchanged

HELD = {"status": "started", "worker_id": "w"}


def marks(body: bytes = b"") -> Once:
    return Once(b"secret", "caller", "key", body, 60_000, 1)


def marked(*calls: Call, body: bytes = b"") -> list[Call]:
    return [marks(body).mark(call, place) for place, call in enumerate(calls)]


async def records(scripts: Scripts) -> dict[str, list[Any]]:
    """What is kept, by the place of the operation."""
    found = {}
    for name, value in (await snapshot(scripts.raw)).items():
        if name.startswith("once:"):
            (place,) = [str(n) for n in range(100) if name == f"once:{marks().id(n)}"]
            found[place] = unpack_answer(value)
    return found


async def test_raw_records(scripts: Scripts) -> None:
    """What the caller sent is not in them, and neither are its key and its name."""
    create = scripts.calls.create(KEY, "a", content="sent", metadata=WAITING, trigger_urls=calling("updated"))
    update = scripts.calls.update(KEY, "gone", metadata={"x": 1})
    await scripts.run(*marked(create, scripts.calls.create(KEY, content=1)))
    await scripts.run(*marked(update, update, update))
    kept = await records(scripts)
    assert sorted(kept) == ["0", "1"]
    body, shown, extra, sort_field = kept["0"]
    assert len(body) == 24
    assert shown.pop(b"t")  # with its API key sealed, as in the item
    assert shown == {b"v": b"1", b"ca": shown[b"ca"], b"ua": shown[b"ca"], b"at": shown[b"ca"], b"a": b"0"}
    assert (extra, sort_field) == (False, False)
    assert kept["1"][3].decode() in (await snapshot(scripts.raw))["k:jobs"]
    raw = (await snapshot(scripts.raw))[f"once:{marks().id(0)}"]
    assert not any(text in raw for text in (b"sent", b"secret", b"caller", b"key"))
    assert 0 < await scripts.raw.pttl(f"{TAG}:once:{marks().id(0)}") <= 60_000


async def test_of_claims_the_tokens_are_kept_and_not_the_contents(scripts: Scripts) -> None:
    await scripts.create("a", content="the content", metadata=WAITING)
    await scripts.run(*marked(scripts.calls.claim(KEY, worker_id="v")))
    ((_, shown, extra, _),) = (await records(scripts)).values()
    ((sort_field, fields),) = extra[b"items"]
    assert (shown, sort_field, fields[b"tk"].decode()) == (False, b"a", await scripts.token("a"))
    assert b"c" not in fields


async def test_of_what_is_deleted_nothing_is_kept(scripts: Scripts) -> None:
    await scripts.create("a", content="the content")
    delete = marked(scripts.calls.delete(KEY, "a"))
    (first,) = await scripts.run(*delete)
    (again,) = await scripts.run(*delete)
    assert first.item.content == "the content"
    assert (again.word, again.item, again.replayed) == ("ok", None, True)
    assert (await records(scripts))["0"][1] is False


@pytest.mark.parametrize("verb", ["create", "update", "start", "delete", "claim", "complete", "extend"])
async def test_a_lost_answer_is_the_same(scripts: Scripts, verb: str) -> None:
    """By the id of its call, be it a first answer or one that was given again."""
    await scripts.create("held", content=1, metadata=HELD)
    await scripts.create("waits", content=1, metadata=WAITING)
    calls, token = scripts.calls, await scripts.token("held")
    call = {
        "create": calls.create(KEY, metadata=HELD),
        "update": calls.update(KEY, "waits", metadata={"x": 1}),
        "start": calls.update(KEY, "waits", metadata=HELD),
        "delete": calls.delete(KEY, "waits"),
        "claim": calls.claim(KEY, worker_id="v"),
        "complete": calls.complete(KEY, "held", token),
        "extend": calls.extend(KEY, "held", token),
    }[verb]
    (first,) = await scripts.twice(*marked(call))
    before = await snapshot(scripts.raw)
    await scripts.raw.delete(f"{TAG}:o:lost")
    (again,) = await scripts.twice(*marked(call))
    assert await snapshot(scripts.raw) == before
    assert (first.replayed, again.replayed) == (False, True)
    if verb != "delete":
        assert structs.replace(again, replayed=False) == first


async def test_the_same_id_twice_in_one_call(scripts: Scripts) -> None:
    update = scripts.calls.update(KEY, "a", metadata={"x": 1})
    await scripts.create("a")
    calls = [*marked(update), *marked(update), *marked(update, body=b"another")]
    first, second, third = await scripts.run(*calls)
    assert (first.version, first.replayed) == (2, False)
    assert (second.version, second.replayed) == (2, True)
    assert third.word == "idempotency_key_reused"
    assert (await scripts.fields("a"))["v"] == "2"


async def test_another_item_under_the_id(scripts: Scripts) -> None:
    await scripts.create("a")
    await scripts.create("b")
    await scripts.run(*marked(scripts.calls.update(KEY, "a")))
    async with unchanged(scripts.raw):
        for call in (scripts.calls.update(KEY, "b"), scripts.calls.update("other", "a")):
            assert await scripts.words(*marked(call)) == ["idempotency_key_reused"]


async def test_other_settings_are_told_and_nothing_is_kept(scripts: Scripts) -> None:
    await scripts.configure(generation=3)
    create = marked(scripts.calls.create(KEY, "a"))
    async with unchanged(scripts.raw):
        assert await scripts.words(*create) == ["settings_changed"]
    assert await scripts.words(*create, generation=3) == ["ok"]
    assert await scripts.words(*create) == ["ok"]


@pytest.mark.spoils
@pytest.mark.parametrize("wrong", ["text", "list", "cut short"])
async def test_a_record_of_a_wrong_kind(scripts: Scripts, wrong: str) -> None:
    """Its operation is not done; those beside it are."""
    name = f"{TAG}:once:{marks().id(0)}"
    match wrong:
        case "text":
            await scripts.raw.set(name, "spoilt")
        case "list":
            await scripts.raw.rpush(name, "spoilt")
        case _:
            await scripts.raw.set(name, b"\x94\xa4sp")
    calls = [scripts.calls.create(KEY, "a"), scripts.calls.create(KEY, "b")]
    assert await scripts.words(*marked(*calls)) == ["corrupt", "ok"]
    assert await scripts.raw.zrange(f"{TAG}:k:jobs", 0, -1) == [b"b"]
