import pytest
import torch

from examples.text_data import SourceText, read_standard_library


def test_a_window_and_the_bytes_that_follow() -> None:
    data = SourceText(context=64)
    text = read_standard_library()
    tokens, following = data[1]
    assert tokens.dtype == torch.int64
    assert bytes(tokens.tolist()) == bytes(text[64:128].tolist())
    assert bytes(following.tolist()) == bytes(text[65:129].tolist())


def test_every_window_is_whole() -> None:
    data = SourceText(context=100)
    tokens, following = data[len(data) - 1]
    assert tokens.shape == following.shape == (100,)
    with pytest.raises(IndexError):
        data[len(data)]


def test_validation_text_is_not_trained_on() -> None:
    training, validation = SourceText(context=64), SourceText(context=64, validation=True)
    assert torch.equal(torch.cat([training.text, validation.text]), read_standard_library())
    assert 0 < len(validation) < len(training)
