"""Teachers against literal odds, lessons in the environment, and that a run with a curriculum continues where it stopped."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from tests.worldpack_agents.test_train import small, weights
from worldpack_agents.callbacks import read_curve
from worldpack_agents.checkpoints import BEST, checkpoints, load_agent
from worldpack_agents.curriculum import CurriculumConfig, Lesson, lesson_bank, lessons_of, make_teacher, parse_lesson
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.eval_callback import FILE
from worldpack_agents.figures import FRAME_MS, gif
from worldpack_agents.train import train_agent

LOOP = EnvConfig(task="LoopNav", nav_range=7, num_starts=3)


def test_lessons_lead_to_the_task() -> None:
    names = [lesson.name for lesson in lessons_of(CurriculumConfig(), replace(LOOP, nav_range=50))]
    assert names == ["AB-5", "ABA-5", "ABA-15", "ABA-30", "ABA-50"]
    told = CurriculumConfig(lessons=("AB-5", "ABA-7-turn"))
    assert lessons_of(told, LOOP) == (Lesson(5, "AB"), Lesson(7, "ABA", "turn"), Lesson(7, "ABA"))
    assert [lesson.name for lesson in lessons_of(CurriculumConfig(), EnvConfig(nav_range=15))] == ["AB-5", "AB-15"], "GoTo"
    with pytest.raises(ValueError, match="ABCA-5 has a longer loop than the task ABA-7"):
        lessons_of(CurriculumConfig(lessons=("ABCA-5",)), LOOP)
    with pytest.raises(ValueError, match="not Explore"):
        lessons_of(CurriculumConfig(), EnvConfig(task="Explore"))


def test_lessons_can_have_detours_before_the_way_home() -> None:
    lesson = parse_lesson("ABA-15-turn-24")
    assert lesson == Lesson(15, "ABA", "turn", 24)
    assert lesson.name == "ABA-15-turn-24"
    home = replace(LOOP, start="turn", distractors=8)
    told = lessons_of(CurriculumConfig(lessons=("ABA-5-turn", "ABA-7-turn-4")), home)
    assert [lesson.name for lesson in told] == ["ABA-5-turn", "ABA-7-turn-4", "ABA-7-turn-8"], "the task itself is the last"
    bank = lesson_bank(told, replace(home, num_starts=1), (64, 64))
    assert len(bank[2].frames) == len(bank[1].frames) + 4
    bank.close()


@pytest.mark.parametrize("text", ["ABA", "ABA-2", "ABAB-5", "ABA-5-home", "AB-5-turn", "ABA-x", "ABA-5-spawn-3", "AB-5-turn-3", "ABA-5-turn-"])
def test_what_is_no_lesson_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="There is no lesson"):
        parse_lesson(text)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="gate must be above 0"):
        CurriculumConfig(gate=0.0)
    with pytest.raises(ValueError, match="window must be at least 4"):
        CurriculumConfig(window=3)
    with pytest.raises(ValueError, match="teacher"):
        CurriculumConfig(teacher="linea")  # type: ignore[arg-type]


def test_none_and_uniform_and_linear() -> None:
    assert make_teacher(CurriculumConfig("none"), 3).odds(0.3).tolist() == [0, 0, 1]
    assert make_teacher(CurriculumConfig("uniform"), 4).odds(0.3).tolist() == [0.25] * 4
    linear = make_teacher(CurriculumConfig("linear", linear_share=0.5), 3)
    assert linear.odds(0.0) == pytest.approx([2 / 3, 1 / 3, 0])
    assert linear.odds(0.25) == pytest.approx([0.25, 0.5, 0.25])
    for done in (0.5, 1.0):
        assert linear.odds(done) == pytest.approx([0, 1 / 3, 2 / 3])


def test_the_gate_opens_when_the_newest_lesson_is_learned() -> None:
    teacher = make_teacher(CurriculumConfig("gated", gate=0.75, window=4), 3)
    assert teacher.odds(0).tolist() == [1, 0, 0]
    for score in (1, 0, 1):
        teacher.observe(0, score)
    assert teacher.odds(0).tolist() == [1, 0, 0], "not enough episodes yet"
    teacher.observe(0, 1)
    assert teacher.odds(0).tolist() == [0.25, 0.75, 0]
    for _ in range(4):
        teacher.observe(0, 1)
    assert teacher.odds(0).tolist() == [0.25, 0.75, 0], "what counts is the newest lesson"
    for _ in range(4):
        teacher.observe(1, 1)
    assert teacher.odds(0) == pytest.approx([1 / 6, 1 / 6, 2 / 3])
    again = make_teacher(CurriculumConfig("gated", gate=0.75, window=4), 3)
    again.load(json.loads(json.dumps(teacher.state())))
    assert again.odds(0).tolist() == teacher.odds(0).tolist()


def test_progress_goes_where_success_changes() -> None:
    teacher = make_teacher(CurriculumConfig("progress", window=8, explore=0.3), 3)
    assert teacher.odds(0) == pytest.approx([1 / 3] * 3), "nothing is known yet"
    for i in range(8):
        teacher.observe(0, 1.0)  # mastered
        teacher.observe(1, float(i >= 4))  # being learned
        teacher.observe(2, 0.0)  # out of reach
    assert teacher.odds(0) == pytest.approx([0.1, 0.8, 0.1])
    for i in range(8):
        teacher.observe(1, 1.0)
        teacher.observe(0, float(i < 4))  # being forgotten counts as much
    assert teacher.odds(0) == pytest.approx([0.8, 0.1, 0.1])


@pytest.mark.parametrize("teacher", ["gated", "progress"])
def test_a_curriculum_goes_on_where_it_stopped(tmp_path: Path, teacher: str) -> None:
    config = small(tmp_path / "whole", env=LOOP, where="real", curriculum=CurriculumConfig(teacher, window=4, gate=0.3), total_steps=768)  # type: ignore[arg-type]
    train_agent(config)
    parts = replace(config, out=tmp_path / "parts")
    train_agent(parts)
    for path in checkpoints(parts.out)[1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    train_agent(parts)
    first, second = weights(config.out), weights(parts.out)
    assert all(np.array_equal(first[k], second[k]) for k in first)
    saved = [json.loads((checkpoints(run)[-1] / "manifest.json").read_text())["curriculum"] for run in (config.out, parts.out)]
    assert saved[0] == saved[1]
    assert sum(map(len, saved[0]["scores"])) > 0, "episodes were told to the teacher"


def test_evaluation_changes_nothing_and_keeps_the_best(tmp_path: Path) -> None:
    env = EnvConfig(nav_range=5, num_starts=4)
    plain, watched = small(tmp_path / "plain", env=env, where="real"), small(tmp_path / "watched", env=env, where="real")
    train_agent(plain)
    train_agent(replace(watched, eval_every=256, eval_episodes=3))
    first, second = weights(plain.out), weights(watched.out)
    assert all(np.array_equal(first[k], second[k]) for k in first)
    lines = read_curve(watched.out / FILE)
    assert [(line["step"], line["in"]) for line in lines] == [(256, "real"), (512, "real")]
    (best,) = checkpoints(watched.out, BEST)
    score = max((line["success"]["mean"], line["return"]["mean"]) for line in lines)  # type: ignore[index]
    about = json.loads((best / "manifest.json").read_text())
    assert (about["success"], about["return"]) == score
    assert load_agent(best).steps == about["steps"]

    shown = EventAccumulator(str(watched.out / "tensorboard"), size_guidance={IMAGES: 0}).Reload()
    assert shown.Tags()[IMAGES] == ["eval/real_episode_0"]
    pictures = shown.Images("eval/real_episode_0")
    assert [picture.step for picture in pictures] == [256, 512]
    moving = Image.open(io.BytesIO(pictures[0].encoded_image_string))
    assert moving.size == (128, 128) == (pictures[0].width, pictures[0].height)
    assert moving.n_frames > 1
    assert moving.info["duration"] == FRAME_MS


def test_short_stretches_are_judged_by_the_whole_task(tmp_path: Path) -> None:
    env = EnvConfig(nav_range=15, num_starts=4, max_episode_steps=4)
    train_agent(small(tmp_path, env=env, where="real", total_steps=256, eval_every=256, eval_episodes=3, eval_max_episode_steps=11))
    (line,) = read_curve(tmp_path / FILE)
    assert line["length"]["mean"] == 11, "fifteen blocks are further than four steps, and than eleven"  # type: ignore[index]
    with pytest.raises(ValueError, match="eval_max_episode_steps must be at least 1"):
        small(tmp_path, env=env, where="real", eval_max_episode_steps=0)


def test_a_gif_shows_every_frame() -> None:
    frames = np.zeros((3, 8, 10, 3), np.uint8)
    frames[1, 2:4] = (200, 30, 30)
    frames[2, :, 5] = (30, 30, 200)
    moving = Image.open(io.BytesIO(gif(frames, scale=3)))
    for number, frame in enumerate(frames):
        moving.seek(number)
        seen = np.asarray(moving.convert("RGB"))
        assert seen.shape == (24, 30, 3)
        assert np.abs(seen[::3, ::3].astype(int) - frame).max() <= 8, number


def test_evaluations_after_the_place_where_training_goes_on_are_made_again(tmp_path: Path) -> None:
    config = small(tmp_path, env=EnvConfig(nav_range=5, num_starts=4), where="real", eval_every=256, eval_episodes=2)
    (tmp_path / FILE).write_text('{"step": 256, "in": "real"}\n')  # as a run leaves it that was killed before its first checkpoint
    train_agent(config)
    assert [line["step"] for line in read_curve(tmp_path / FILE)] == [256, 512]
    assert "success" in read_curve(tmp_path / FILE)[0]
