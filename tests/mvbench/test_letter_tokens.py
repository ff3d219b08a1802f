"""Letters are found in vocabularies that write a space into the first piece of a text."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from msvqa.mvbench.prompts import letter_tokens


def test_the_piece_behind_a_bracket_is_one_of_a_letters():
    pieces = [("<unk>", 0.0), ("\u2581", -3.0), ("(", -2.0), ("A", -2.0), ("\u2581A", -1.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    assert tokenizer.encode("A", add_special_tokens=False) == [4]
    behind = tokenizer.encode("(A", add_special_tokens=False)[-1]
    assert behind == 3
    assert letter_tokens(tokenizer, "A") == [3, 4]
    assert letter_tokens(tokenizer, "Z") == []
