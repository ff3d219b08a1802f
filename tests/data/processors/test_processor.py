"""Which processor a recipe means, and that it is found without another edit."""

import pytest

from msvqa.data.processors import PROCESSORS
from msvqa.data.processors.clips import Clips
from msvqa.data.processors.features import Features
from msvqa.data.processors.frames import Frames
from msvqa.data.processors.nothing import Nothing
from msvqa.data.processors.processor import Processor, processor_of, store_location, store_spec
from msvqa.engine.inputs import model_sizes, open_inputs
from msvqa.errors import RecipeError
from msvqa.sections import resolve
from tests.tiny import make_data, make_recipe


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_name_is_a_processor(name):
    kind = resolve(name, PROCESSORS, "processor")
    assert issubclass(kind, Processor)
    assert kind.Config.model_fields["name"].default == name


def test_recipes_without_the_field_mean_clips_or_features(tmp_path):
    recipe = make_recipe(tmp_path)
    assert isinstance(processor_of(recipe), Clips)
    encoders = "features={appearance: {name: resnet}, motion: {name: resnext3d}}"
    assert isinstance(processor_of(make_recipe(tmp_path, encoders)), Features)


def test_a_section_with_a_name_is_the_same_as_the_section_of_old(tmp_path):
    old = make_recipe(tmp_path)
    fields = {"num_clips": 2, "frames_per_clip": 4, "size_px": 32}
    plain = make_recipe(tmp_path, "clips={}", f"processor={{name: clips, {str(fields)[1:-1]}}}")
    assert store_spec(plain) == store_spec(old)
    assert store_location(plain) == store_location(old)
    assert dict(model_sizes(plain, None)) == dict(model_sizes(old, None))


def test_two_answers_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="clips: put its fields into the section processor"):
        make_recipe(tmp_path, "processor={name: frames}")


def test_a_model_that_lacks_a_size_says_so(tmp_path):
    recipe = make_recipe(tmp_path, "clips={}", "processor={name: frames, frames: 4}")
    assert isinstance(processor_of(recipe), Frames)
    sizes = model_sizes(recipe, None)
    with pytest.raises(ValueError, match=r"needs the size 'num_clips' .* frames"):
        _ = sizes.num_clips


def test_nothing_is_read_for_text_alone(tmp_path):
    prepared, _ = make_data(tmp_path)
    recipe = make_recipe(tmp_path, "clips={}", "processor={name: none}")
    assert isinstance(processor_of(recipe), Nothing)
    inputs = open_inputs(recipe, prepared, None, "train")
    assert list(inputs.source.batches([[0, 1], [-1]])) == [{}, {}]
