"""Templates: every code one id of its own, rows that round-trip through the prompt, hashes that follow the content."""

import numpy as np
import pytest

from pipeline.dataset import TokenDataset
from pipeline.tokens.templates import Plain, llasa, neutts, neutts_keeps
from tests.token_toys import record, write_parquet

SPECIALS = [
    "<|TEXT_PROMPT_START|>", "<|TEXT_PROMPT_END|>", "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>",
    "<|TEXT_UNDERSTANDING_START|>", "<|TEXT_UNDERSTANDING_END|>",
]  # fmt: skip


def make_tokenizer(words, speech="<|speech_{}|>"):
    """A byte-level tokenizer of `transformers` with the prompt's specials and 65,536 speech tokens added."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        [words], tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.add_tokens(SPECIALS + [speech.format(n) for n in range(65_536)])
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer("user: Convert the text to speech: assistant: hɛlˈoʊ wˈɜːld")


def test_every_speech_token_is_one_id_of_its_own(tokenizer):
    template = neutts(tokenizer)
    assert len(template.speech) == 65_536 == len(np.unique(template.speech))
    assert not set(template.speech.tolist()) & set(tokenizer.convert_tokens_to_ids(SPECIALS))
    text = "".join(f"<|speech_{n}|>" for n in range(65_536))
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == template.speech.tolist()


def test_a_row_round_trips_through_the_prompt_of_neutts(tokenizer, tmp_path):
    records = [record(n) for n in range(40)]
    write_parquet(tmp_path / "a.parquet", records)
    said = neutts(tokenizer, phones=lambda texts: [f"ɹˈoʊ  {text.split()[-1]}\n" for text in texts], version="test 1")
    for batch in TokenDataset(str(tmp_path), 8, template=said):
        for ids, prompt in zip(batch["ids"], batch["prompt"], strict=True):
            codes = ids[prompt:-1] - said.speech[0]
            number = int(codes[0]) * 65_536 + int(codes[1])
            phones = f"ɹˈoʊ {number}."
            spoken = "".join(f"<|speech_{code}|>" for code in record(number).codes[0])
            whole = (
                f"user: Convert the text to speech:<|TEXT_PROMPT_START|>{phones}<|TEXT_PROMPT_END|>\n"
                f"assistant:<|SPEECH_GENERATION_START|>{spoken}<|SPEECH_GENERATION_END|>"
            )
            assert tokenizer.encode(whole) == ids.tolist()
            assert tokenizer.decode(ids) == whole
            assert tokenizer.convert_ids_to_tokens(int(ids[prompt - 1])) == "<|SPEECH_GENERATION_START|>"


def test_phonemes_may_be_a_column_and_rows_without_are_dropped_and_counted(tokenizer, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "a.parquet", [record(n) for n in range(40)])
    table = pq.read_table(tmp_path / "a.parquet")
    phones = [None if n % 4 == 0 else " " if n % 4 == 1 else f"nˈʌm {n}" for n in range(40)]
    pq.write_table(table.append_column("phones", pa.array(phones)), tmp_path / "a.parquet")
    template = neutts(tokenizer)
    dataset = TokenDataset(str(tmp_path), 4, template=template, sequence_length=512)
    assert dataset.dropped["tokens"] == {"filtered": 0, "refused_by_template": 20, "too_long": 0}
    labels = ids = 0
    for batch in dataset:
        kept = ~batch["filler"]
        labels += int((batch["labels"][kept] >= 0).sum())
        ids += int((batch["sequence_ids"][kept] > 0).sum())
    speech = sum(record(n).codes.shape[1] + 1 for n in range(40) if n % 4 > 1)
    prompts = template.prompts({"phones": phones})
    assert labels == speech and ids == speech + sum(len(p) for p in prompts if p is not None)


def test_llasa_reads_the_text_as_written():
    tokenizer = make_tokenizer("Row number", speech="<|s_{}|>")
    template = llasa(tokenizer)
    [prompt, none] = template.prompts({"text": [" Row number 7. ", None]})
    assert none is None
    start = "<|TEXT_UNDERSTANDING_START|>Row number 7.<|TEXT_UNDERSTANDING_END|><|SPEECH_GENERATION_START|>"
    assert tokenizer.decode(prompt) == start
    assert template.speech[12_345] == tokenizer.convert_tokens_to_ids("<|s_12345|>")
    with pytest.raises(ValueError, match=r"lacks 65536 tokens of the prompt, <\|speech_0\|> first"):
        neutts(tokenizer)


def test_the_hash_follows_whatever_decides_the_ids(tokenizer):
    def spoken(texts):
        return texts

    hashes = [
        neutts(tokenizer).hash,
        neutts(tokenizer, phones="ipa").hash,
        neutts(tokenizer, spoken, version="1").hash,
        neutts(tokenizer, spoken, version="2").hash,
        neutts(tokenizer, spoken, version="1", keeps=neutts_keeps).hash,
        neutts(make_tokenizer("other words")).hash,
        Plain().hash,
        Plain(base=1).hash,
        Plain(end_id=1).hash,
    ]
    assert len(set(hashes)) == len(hashes)
    tokenizer("long " * 100, truncation=True, max_length=8)  # leaves its mark in the tokenizer, not in the hash
    assert neutts(tokenizer).hash == hashes[0]
    with pytest.raises(ValueError, match="say which by version"):
        neutts(tokenizer, spoken)


# what the row filter of NeuTTS fine-tuning takes and what it drops
SENTENCES = {
    "This is a sentence.": True,
    "Is it one, too?": True,
    "Yes!": True,
    "And so on,": True,
    "I am.": True,
    "Mr. Smith said so.": True,
    "Señor Ångström.": True,
    "": False,
    "No full stop": False,
    "It ends in a colon:": False,
    "Quoted.”": False,
    "There are 3 of them.": False,
    "In the U.S. of old.": False,
    "At 5 p.m. sharp.": False,
    "At five p.m. sharp.": False,
    "NASA flew.": False,
    "An OK idea.": False,
    "It costs a £ or two.": False,
    "Dollars, $.": False,
    "Arabic ٣ digits.": False,
}


@pytest.mark.parametrize(("text", "kept"), SENTENCES.items())
def test_the_row_filter_of_neutts(text, kept):
    assert neutts_keeps(text) is kept


def test_rows_are_kept_by_their_text_and_said_by_their_phonemes(tokenizer):
    columns = {"phones": ["wˈʌn", "tˈuː", ""], "text": ["One.", "2.", "Three."]}
    taken = neutts(tokenizer, keeps=neutts_keeps).prompts(columns)
    assert [ids is not None for ids in taken] == [True, False, False]
