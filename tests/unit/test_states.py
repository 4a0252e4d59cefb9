"""The life of a video as data: what the table of moves promises to all who read it."""

import pytest

from shared.vocabulary.states import MOVES, GroupState, Phase, VideoState

FINAL = {VideoState.COMPLETED, VideoState.FAILED, VideoState.CANCELLED}


def test_every_state_has_its_moves():
    assert set(MOVES) == set(VideoState)


def test_three_states_are_final_and_nothing_moves_them():
    assert {state for state in VideoState if state.is_final} == FINAL
    assert all(not MOVES[state] for state in FINAL)


def test_a_waiting_video_can_only_start_or_be_cancelled():
    assert MOVES[VideoState.QUEUED] == {VideoState.IN_PROGRESS, VideoState.CANCELLED}


def test_a_running_video_can_end_in_any_way_or_wait_again():
    assert MOVES[VideoState.IN_PROGRESS] == {*FINAL, VideoState.QUEUED}


def test_no_state_moves_to_itself():
    assert all(state not in targets for state, targets in MOVES.items())


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        MOVES[VideoState.FAILED] = frozenset({VideoState.QUEUED})


def test_people_read_states_as_words():
    assert VideoState.IN_PROGRESS.word == "in progress"


@pytest.mark.parametrize("states", [VideoState, GroupState], ids=lambda s: s.__name__)
def test_every_state_is_told_without_colour(states):
    assert all(len(state.glyph) == 1 for state in states)


def test_no_two_states_of_a_video_look_alike():
    assert len({state.glyph for state in VideoState}) == len(VideoState)


def test_phases_are_told_in_the_order_in_which_they_happen():
    assert [*Phase][:2] == ["load", "text_encode"]
    assert [*Phase][-4:] == ["denoise", "decode", "encode", "store"]
