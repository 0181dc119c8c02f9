"""Configurations are read strictly and say what is wrong."""

import json

import pytest

from worldpack_model.config import PRESETS, VARIANTS, Level, ModelConfig, PackingConfig, TransformerConfig, from_dict, lookup, parse_packing


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_json(name: str) -> None:
    config = PRESETS[name]
    assert from_dict(ModelConfig, json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="ModelConfig.transformer has an unknown key 'widht'. Did you mean 'width'"):
        from_dict(ModelConfig, {"transformer": {"widht": 3}})


@pytest.mark.parametrize(
    "data",
    [
        {"transformer": {"width": "192"}},
        {"transformer": {"width": True}},
        {"transformer": {"geometry": "flat"}},
        {"frame_size": [64]},
        {"packing": {"levels": 3}},
        {"packing": []},
    ],
)
def test_wrong_values_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_dict(ModelConfig, data)


def test_variants_have_equal_token_budgets() -> None:
    budget = {name: packing.tokens(8, 8) for name, packing in VARIANTS.items()}
    assert budget == {"recent": 256, "packing": 256, "retrieval": 256, "worldpack": 256, "graded": 256, "long": 1408, "v1": 160, "v3": 256}
    assert VARIANTS["worldpack"].frames == VARIANTS["long"].frames == VARIANTS["packing"].frames == 22


def test_token_count_of_the_papers_schedule() -> None:
    # reference/worldpack.md 1.2 counts v1 (1 / 2 / 16) on 16 x 16 latents at base patch 2 as 160 tokens: kernels 2, 4, 8
    assert PackingConfig((Level(2, 1, 0), Level(4, 2, 0), Level(8, 8, 8))).tokens(16, 16) == 160
    assert PackingConfig((Level(2, 1, 0), Level(4, 2, 0), Level(8, 8, 8))).tokens(28, 28) == 196 + 2 * 49 + 16 * 16


def test_a_schedule_of_ones_own() -> None:
    assert parse_packing("1:1+1, 2:1+3,4:8+8") == VARIANTS["v3"] == PackingConfig()
    with pytest.raises(ValueError, match="'2:1' in the schedule .* is no level; expected KERNEL:RECENT"):
        parse_packing("1:1+1,2:1")
    with pytest.raises(ValueError, match="no level"):
        parse_packing("0:1+1")


def test_variants_keep_their_budget_at_any_patch() -> None:
    """Relative to the target's own tokens a schedule costs the same over tokens of four cells."""
    base = PRESETS["base"]
    assert base.latent_size == (28, 28)
    assert base.with_variant("v3") == base
    assert base.with_variant("v1").packing.tokens(28, 28) == 196 + 2 * 49 + 16 * 16
    assert base.packing.tokens(28, 28) == 2 * 196 + 4 * 49 + 16 * 16


def test_lookup_suggests() -> None:
    with pytest.raises(ValueError, match="no variant named 'recnt'.*Did you mean 'recent'"):
        lookup(VARIANTS, "recnt", "variant")


@pytest.mark.parametrize(
    "change", [{"frame_size": (60, 64)}, {"transformer": TransformerConfig(patch=3)}, {"packing": PackingConfig((Level(1, 0, 3),))}]
)
def test_impossible_models_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected|needs"):
        ModelConfig(**change)  # type: ignore[arg-type]
