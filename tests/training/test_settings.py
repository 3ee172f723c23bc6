from __future__ import annotations

from pathlib import Path

import pytest

from model.config import SIZES
from training.pack import PackConfig
from training.recipe import PretrainConfig
from training.settings import PACKAGED, SettingsError, checked, load


def recipe(*overrides: str, name: str = "smoke") -> PretrainConfig:
    return load(PretrainConfig, Path(name), ["data.path=/data", *overrides])


@pytest.mark.parametrize("name", [p.stem for p in PACKAGED.glob("*.yaml") if not p.stem.startswith("pack")])
def test_packaged_recipes_are_valid(name: str) -> None:
    given = ["encoder=/e.safetensors"] if name == "default_decoder" else []
    assert recipe(*given, name=name).data.path == Path("/data")


def test_the_decoders_recipe_asks_for_its_encoder() -> None:
    with pytest.raises(
        SettingsError, match=r"default_decoder\.yaml: encoder has no value; .* encoder=VALUE$"
    ):
        recipe(name="default_decoder")


def test_a_recipe_without_data_asks_for_them() -> None:
    with pytest.raises(SettingsError, match=r"data\.path has no value; .* data\.path=VALUE$"):
        load(PretrainConfig, Path("smoke"))


def test_a_time_that_cannot_be_read_is_said_before_the_files_are_read() -> None:
    source = {"name": "a", "path": "a", "kind": "folder", "when": "2024-13-01"}
    with pytest.raises(SettingsError, match=r"sources\.0\.when: .*month must be in 1\.\.12"):
        checked(PackConfig, {"sources": [source]})


@pytest.mark.parametrize("name", [p.stem for p in PACKAGED.glob("pack*.yaml")])
def test_packaged_pack_configurations_are_valid(name: str) -> None:
    assert load(PackConfig, Path(name)).sources


def test_published_is_the_published_recipe() -> None:
    found = recipe(name="published")
    assert found.architecture == SIZES["S"]
    o = found.optimiser
    assert (o.learning_rate, o.weight_decay, o.clip, o.warm_up) == (3e-4, 0.05, 1.0, 0.05)
    assert (o.schedule, o.ema) == ("cosine", None)
    assert (found.batch_size * found.accumulate, found.epochs, found.mask_ratio) == (128, 500, 0.75)
    assert (found.loss.unmasked, found.loss.auxiliary) == (0.1, 0.5)
    assert not any((found.loss.ignore_invalid, found.loss.normalise_patches, found.data.flips))
    assert (found.data.nodata_fill, found.data.drop_metadata, found.data.drop_field) == ("as_is", 0, 0)
    # 269,694 training tiles in batches of 128, 500 times.
    assert found.total_steps(269_694, 1) == round(500 * 269_694 / 128)


def test_overrides_reach_nested_keys() -> None:
    found = recipe("optimiser.learning_rate=0.01", "data.weights={a: 2, b: 1}", "run.threads=3")
    assert found.optimiser.learning_rate == 0.01
    assert found.data.weights == {"a": 2.0, "b": 1.0}
    assert found.run.threads == 3


def test_a_mapping_stands_in_place_of_the_recipes() -> None:
    overrides = ["data.path=x", "data.weights={mine: 0.7, yours: 0.3}", "data.weights.theirs=0.1"]
    found = load(PretrainConfig, Path("default"), overrides)
    assert found.data.weights == {"mine": 0.7, "yours": 0.3, "theirs": 0.1}
    more = load(PretrainConfig, Path("default"), ["data.path=x", "data.weights.mine=1"])
    assert set(more.data.weights or {}) > {"mine", "landsat_c2l2"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", r"optimiser\.lr: unknown key"),
        ("optimiser.learning_rate=fast", r"optimiser\.learning_rate: .*got 'fast'"),
        ("optimiser.learning_rate=-1", r"greater than 0; got -1"),
        ("model=L", "model"),
        ("model.depth=2", "depth is 2; expected at least 3"),
        ("model.layers=2", "layers"),
        ("model.image_size=48", "image_size is 48; expected 40"),
        ("model.in_channels=6", "in_channels is 6; expected 7"),
        ("epochs=3", "exactly one of steps and epochs; got 6 and 3"),
        ("data.weights={a: 0}", "positive"),
        ("data.split=tests", r"data\.split: .*got 'tests'"),
        ("data.validation_split=tests", r"data\.validation_split: .*got 'tests'"),
        ("optimiser.betas=[0.9, 1]", r"optimiser\.betas\.1: .*less than 1; got 1"),
        ("optimiser.learning_rate=.inf", "finite number; got inf"),
        ("mask_ratio=0", "greater than 0"),
        ("mask_ratio=0.995", "mask_ratio 0.995 hides all or none of 100 patches"),
        ("run.precision=64", "got '64'"),
        ("steps", "expected key=value"),
        ("data.path=???", "data.path"),
        ("a.b=[", "a.b"),
    ],
)
def test_what_is_wrong_is_named(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        recipe(override)


def test_what_is_wrong_with_all_keys_together_does_not_list_them() -> None:
    with pytest.raises(SettingsError) as refused:
        recipe("epochs=3")
    assert "learning_rate" not in str(refused.value)


def test_a_source_that_is_refused_is_one_line() -> None:
    source = {"name": "a", "path": "a", "kind": "folder", "units": "metres"}
    with pytest.raises(SettingsError) as refused:
        checked(PackConfig, {"sources": [source]})
    _, *lines = str(refused.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("  sources.0.units: ")
    with pytest.raises(SettingsError, match="sources: Tuple should have at least 1 item"):
        checked(PackConfig, {"sources": []})


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_precision_is_given_as_the_error_of_a_run_advises(precision: str) -> None:
    assert recipe(f"run.precision={precision}").run.precision == precision


def test_a_folder_of_the_recipes_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").mkdir()  # a run's, say
    assert recipe().name == "smoke"


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"- 1\n- 2\n", b"just text"])
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"x\.yaml"):
        load(PretrainConfig, path, ["steps=3"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.yaml.*in the package are default, default_decoder, "):
        load(PretrainConfig, tmp_path / "nothing.yaml")
