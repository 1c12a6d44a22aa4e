"""Bugs to be planted: each is one exact text of one file, replaced by another, and the test that must then fail.

Texts are as short as they can be, so that they outlive changes around them.
"""

from __future__ import annotations

from dataclasses import dataclass

LIB = "lua/hookline_lua/lib"
ENGINE = "engine/hookline"


@dataclass(frozen=True, slots=True)
class Seed:
    """In ``file`` the text ``old``, there once, becomes ``new``: then ``wrong``, and the test ``caught_by`` fails.

    ``by_model`` says that the model in tests/model finds it soon, too.
    """

    name: str
    file: str
    old: str
    new: str
    wrong: str
    caught_by: str
    by_model: bool = False


SEEDS = (
    # Who holds an item
    Seed(
        "no_token_check",
        f"{LIB}/change.lua",
        "operation.token and operation.token ~= fields.tk",
        "false",
        "any token settles a claim, also one that ended long ago",
        "tests/lua/test_settle.py::test_refusals",
        by_model=True,
    ),
    Seed(
        "no_token_check_the_short_way",
        f"{LIB}/plain.lua",
        "or known[1] ~= operation.token",
        "",
        "any token completes a claim, also one that ended long ago",
        "tests/lua/test_settle.py::test_refusals",
        by_model=True,
    ),
    Seed(
        "settings_of_the_last_call",
        f"{LIB}/settings.lua",
        "settings.known = {}",
        "settings.known = settings.known or {}",
        "a call goes by the settings that an earlier one has read",
        "tests/conformance/test_key_settings.py::test_pause_and_resume",
        by_model=True,
    ),
    Seed(
        "items_of_the_last_call",
        f"{LIB}/item.lua",
        "item.view, item.touched, item.changed, item.growth, item.ahead = {}, {}, {}, {}, {}",
        "item.view, item.touched, item.changed, item.growth, item.ahead = item.view or {}, {}, {}, {}, {}",
        "a call sees items as an earlier one has left them",
        "tests/lua/test_claim.py::test_max_attempts",
        by_model=True,
    ),
    Seed(
        "claimed_and_still_in_line",
        f"{LIB}/plain.lua",
        "index.remove(key, 'not_started', sort)",
        "",
        "an item that was claimed stands in line as well",
        "tests/lua/test_plain.py::test_both_ways_leave_the_same",
        by_model=True,
    ),
    Seed(
        "token_of_the_last_holder",
        f"{LIB}/lock.lua",
        "'tk', record.fields.v ..",
        "'tk', record.fields.tk or record.fields.v ..",
        "who takes over an expired lock gets the token of the holder who lost it, which still fits",
        "tests/lua/test_claim.py::test_raw_keys_of_an_expired_one",
        by_model=True,
    ),
    Seed(
        "claim_of_a_live_lock",
        f"{LIB}/change.lua",
        "elseif lock.live(fields) then",
        "elseif false then",
        "an update that claims takes an item away from its holder",
        "tests/lua/test_patch.py::test_refused_claims",
        by_model=True,
    ),
    Seed(
        "attempts_counted_twice",
        f"{LIB}/lock.lua",
        "tonumber(record.fields.a or 0) + 1)",
        "tonumber(record.fields.a or 0) + (record.stored_status == 'started' and 2 or 1))",
        "an attempt that crashed counts once more when its item is claimed again",
        "tests/lua/test_claim.py::test_raw_keys_of_an_expired_one",
        by_model=True,
    ),
    Seed(
        "one_attempt_too_many",
        f"{LIB}/lock.lua",
        ">= most",
        "> most",
        "an item is given out once more than max_attempts says",
        "tests/lua/test_claim.py::test_max_attempts",
        by_model=True,
    ),
    # Indexes
    Seed(
        "no_zrem",
        f"{LIB}/item.lua",
        "if from and from ~= to then",
        "if from and not to then",
        "an item that changes its status stays in the set of the old one, too",
        "tests/lua/test_call.py::test_items_that_change_several_times_end_in_the_right_sets",
        by_model=True,
    ),
    Seed(
        "declared_index_not_patched",
        f"{LIB}/item.lua",
        "  declared.move(record, before)",
        "  if record.exists ~= record.stored then declared.move(record, before) end",
        "an update leaves the declared indexes as they were before it",
        "tests/conformance/test_index.py::test_every_change_moves_the_entry[embedded]",
        by_model=True,
    ),
    Seed(
        "short_create_not_flushed",
        f"{LIB}/plain.lua",
        "item.ahead[name] = true",
        "item.ahead[name] = nil",
        "an item made the short way and changed by the same call is in two status sets",
        "tests/lua/test_create.py::test_what_a_call_made_at_once_can_be_met_again_in_it",
        by_model=True,
    ),
    Seed(
        "backfill_without_its_last_page",
        "lua/hookline_lua/backfill.lua",
        "  index.write('ZADD', index.name(key, place.label), entries)",
        "  if #sorts == PAGE then index.write('ZADD', index.name(key, place.label), entries) end",
        "an index is told to be complete, and lacks the items of the last page",
        "tests/conformance/test_index.py::test_an_index_is_dropped_and_declared_anew[embedded]",
        by_model=True,
    ),
    Seed(
        "no_generation_check",
        f"{LIB}/settings.lua",
        "(tonumber(settings.of(operation.key).generation) or 0) ~= (operation.generation or 0)",
        "false",
        "who plans by settings that hold no longer is not told so",
        "tests/lua/test_call.py::test_another_generation_of_settings_writes_nothing",
    ),
    # One call, one effect
    Seed(
        "refused_and_not_undone",
        f"{LIB}/call.lua",
        "    item.undo(record)",
        "",
        "a change that the full outbox refuses is written all the same, without its event",
        "tests/lua/test_patch.py::test_outbox_full_changes_nothing",
    ),
    Seed(
        "replay_runs_again",
        f"{LIB}/call.lua",
        "if kept then",
        "if false then",
        "a call that comes a second time under its call id takes effect a second time",
        "tests/lua/test_call.py::test_the_same_call_twice_has_one_effect_and_equal_answers",
        by_model=True,
    ),
    Seed(
        "blind_retry",
        f"{ENGINE}/connection.py",
        "                sent = True",
        "                sent, args = True, (*args[:2], secrets.token_hex(12), args[-1])",
        "a write whose answer was lost is sent again as a new call",
        "tests/faults/test_lost_reply.py::test_a_batch_of_which_the_answer_is_lost",
        by_model=True,
    ),
    Seed(
        "lost_reply_told_as_not_run",
        f"{ENGINE}/connection.py",
        "                sent = True",
        "                raise Unavailable('no answer') from None",
        "a caller is told that nothing was done when nobody knows",
        "tests/faults/test_lost_reply.py::test_a_run_stops_at_a_failure",
        by_model=True,
    ),
    Seed(
        "answers_not_kept",
        f"{LIB}/once.lua",
        "once.fresh[#once.fresh + 1] = mark",
        "",
        "a request that is sent again under its idempotency key takes effect again",
        "tests/conformance/test_once.py::test_the_second_time_is_as_the_first[embedded-update-body]",
    ),
    Seed(
        "answers_another_request",
        f"{LIB}/once.lua",
        "record[BODY] ~= mark.body",
        "false",
        "another request under an old idempotency key is told that it was done",
        "tests/lua/test_once.py::test_another_item_under_the_id",
    ),
    # Reads
    Seed(
        "cursor_skips_equal_scores",
        f"{LIB}/range.lua",
        "from = index.rank(name, after[1], after[2])",
        "from = redis.call('ZCOUNT', name, '-inf', after[1])",
        "a page goes on behind all entries that have the score of the last one",
        "tests/lua/test_find.py::test_pages_of_a_status_with_equal_scores",
    ),
    Seed(
        "get_from_another_partition",
        f"{ENGINE}/reader.py",
        "partition = self.calls.partition(key, sort_field)",
        "partition = self.calls.partition(sort_field, key)",
        "an item is looked for in another partition than the one it was created in",
        "tests/conformance/test_items.py::test_create_and_get[partitioned]",
    ),
    Seed(
        "get_many_from_another_partition",
        f"{ENGINE}/query.py",
        "partition_of(key, sort_field)",
        "partition_of(sort_field, key)",
        "the same where many are asked for at once",
        "tests/conformance/test_many.py::test_get_many[partitioned]",
    ),
    Seed(
        "token_shown_to_readers",
        "lua/hookline_lua/find.lua",
        "    if flat[i] == 'tk' then\n      token = i\n    end\n",
        "",
        "whoever reads an item can settle its claim",
        "tests/lua/test_find.py::test_get",
    ),
    # Upkeep and events
    Seed(
        "retention_removes_the_newest",
        f"{LIB}/due.lua",
        "math.min(excess, most) - 1)",
        "math.min(excess, most) - 1, 'REV')",
        "of more items than are kept the last ones go, not the first",
        "tests/conformance/test_retention.py::test_by_count[embedded]",
    ),
    Seed(
        "sweep_forgets_the_rest",
        "lua/hookline_lua/sweep.lua",
        "promoted == most and tonumber(last) or due.next_ms(key)",
        "due.next_ms(key)",
        "of more due items than one step promotes the rest waits until something else becomes due",
        "tests/lua/test_sweep.py::test_promotion_takes_several_steps",
    ),
    Seed(
        "triggers_off_fires",
        f"{LIB}/outbox.lua",
        "operation.triggers == 'off'",
        "false",
        "a change that asked for no webhooks fires them",
        "tests/lua/test_patch.py::test_updated_fires",
    ),
    Seed(
        "another_id_for_each_retry",
        "server/hookline_server/event.py",
        'content["webhookId"],',
        'content["webhookId"] + "-again",',
        "a receiver cannot tell that a webhook is a repeat",
        "tests/server/test_relay.py::test_a_failed_delivery_is_retried_with_the_same_id_and_body",
    ),
    Seed(
        "if_match_ignored",
        "server/hookline_server/routes/item.py",
        "(request), match=version, triggers=triggers)",
        "(request), triggers=triggers)",
        "DELETE removes an item that has changed since its ETag was read",
        "tests/server/test_items.py::test_if_match_compares_the_version_only",
    ),
)
