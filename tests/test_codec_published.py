"""The published weights give the published codes: runs where NEUTOK_WEIGHTS names a folder that holds them.

    neucodec/pytorch_model.bin            hf download neuphonic/neucodec --local-dir ...   (gated: request it first)
    distill-neucodec/pytorch_model.bin    hf download neuphonic/distill-neucodec
    w2v-bert-2.0/model.safetensors        hf download facebook/w2v-bert-2.0
    distilhubert/...                      hf download ntu-spml/distilhubert
    librispeech_asr_dummy/**/validation*.parquet
                                          hf download --repo-type dataset hf-internal-testing/librispeech_asr_dummy

The codes are those of the transformers test suite for NeuCodec (Apache-2.0), first 50 of each clip; for the distilled
model none are published, it is compared with the neucodec package.
"""

import io
import os
from functools import partial
from pathlib import Path

import pyarrow.parquet
import pytest
import soundfile
import torch

import codec
from jobs.parity import compare
from jobs.parity_clips import load_clips

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif("NEUTOK_WEIGHTS" not in os.environ, reason="NEUTOK_WEIGHTS names no folder of weights"),
]

# index in the data set, samples; and the codes
CODES = """
0 93680
50569 52425 49498 59867 49222 52443 36423 39115 57574 49366 51674 33120 26854 24658 43237 19585 39381 22951 47298
27761 38128 38117 11430 28902 27728 2277 39009 60851 57003 45953 17812 45906 8223 18491 52465 42134 9242 30470 2693
57026 51366 64661 15468 26632 25630 25677 24479 8820 15705 15925

1 77040
39138 26801 30933 21906 35029 51354 50248 59596 50774 49818 55758 58698 62621 54345 55453 52046 57757 63705 49809
51674 54608 25830 30966 22577 25831 11429 59557 58790 46707 31926 31415 43395 29528 65261 1812 15992 3412 3749 19925
3729 3718 15120 42821 13824 262 29216 13318 2336 6682 32294

6 90240
36053 23770 55525 50773 51406 49538 60638 55879 55533 51721 52701 55562 56558 50465 36038 52377 59434 44265 10673
38132 22697 31937 25697 22966 38954 6630 55541 58565 32029 1653 24152 48098 17755 42283 47508 45860 2323 23971 62619
47210 4158 29522 30864 1362 6564 30614 31723 31366 31298 28309

8 81920
52378 54382 51418 53818 55690 58665 55662 49435 51534 57622 58397 56428 37133 52300 40974 43101 53258 51468 53786
51532 57637 55508 54485 26849 11505 26849 55730 58896 62544 45393 43272 16930 47377 47984 23814 7195 3113 1049 16391
9225 8205 35485 40676 11496 7876 59720 36080 39137 28801 47125

10 89600
38326 26850 10354 2533 51370 46158 51630 6322 55794 58725 41499 49003 45970 45681 14849 20117 47936 26700 31072 48263
12780 19801 49178 51239 1058 50202 48812 29869 23732 38426 64793 62217 19728 6916 28288 20244 31377 36708 32389 36453
32405 32277 57305 55687 23783 10358 10726 5317 51402 54658

45 92960
54541 51404 54536 56780 54622 56780 56726 52684 55769 44244 27766 30966 40084 39401 26809 42218 26736 6388 59616 22661
12301 7433 27555 65211 35427 48311 43875 36251 29282 16744 14115 30595 33701 45973 4890 5019 22759 50338 8249 54690
61808 42326 45683 14342 17953 19031 31019 7227 64657 63853

55 90880
50249 56521 50441 56790 49673 55770 53773 60806 49428 56795 51723 60889 49557 56516 55682 22741 31861 25829 26729
21670 58848 18453 8229 43670 27265 48555 31329 3241 30033 14658 1829 31007 2159 3194 2409 18603 2410 3113 5148 23961
8933 3492 918 15957 30470 38728 13913 31911 23929 28044

58 96000
39062 22753 26721 39397 25721 26819 43120 23002 35285 55754 38101 52424 34208 55722 56520 54673 56542 17749 40136
43430 40142 38042 40136 39124 40164 60633 61828 44044 37189 48728 20372 23992 31318 47383 46603 44717 2640 48216 45840
1622 6647 59543 24878 21078 38266 45575 17445 14849 36433 20245

68 90400
39078 23765 43145 44229 51526 56713 54490 60653 55687 51672 38293 40152 44166 44244 39329 39333 60632 43381 42213 6325
17830 53403 52462 51440 60552 41037 27661 14665 48452 44608 36229 4009 32235 64405 40633 20112 31328 19637 10038 38502
19313 29877 39345 15477 3429 32499 52979 55530 43213 29773

44 81440
35045 22753 43237 23956 58597 44068 22745 42214 44385 26777 39145 17552 55454 38054 43493 23653 38058 39333 43173
47329 43056 18645 26852 39012 42214 27813 39157 58789 59047 34674 48624 9321 3432 12826 13384 14690 15779 3498 5735
14950 13895 31342 34779 23198 45908 4621 794 15059 12938 13080
"""
SOUND = (-0.00110086, -0.00146064, -0.00133648, -0.00123423, -0.00165733, -0.00235966)


def folder(name):
    return str(Path(os.environ["NEUTOK_WEIGHTS"]) / name)


def published_codes():
    for row in CODES.strip().split("\n\n"):
        index, samples, *codes = map(int, row.split())
        yield index, samples, codes


def dummy_clips():
    """float32 [T] at 16 kHz of every row of the data set."""
    (path,) = Path(folder("librispeech_asr_dummy")).rglob("validation*.parquet")
    for audio in pyarrow.parquet.read_table(path, columns=["audio"])["audio"].to_pylist():
        sound, rate = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")
        assert rate == 16_000
        yield torch.from_numpy(sound)


def test_neucodec_gives_the_published_codes():
    model, clips = codec.load("neucodec", weights=folder("neucodec")), list(dummy_clips())
    rows = list(published_codes())
    assert len(rows) == 10
    waveforms = [clips[index] for index, _, _ in rows]
    assert [len(waveform) for waveform in waveforms] == [samples for _, samples, _ in rows]
    for waveform, (_, samples, wanted) in zip(waveforms, rows, strict=True):
        codes = model.encode(waveform[None, None], torch.tensor([samples]))
        assert codes[0, 0, :50].tolist() == wanted
    batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)[:, None]
    together = model.encode(batch, torch.tensor([samples for _, samples, _ in rows]))
    assert together[:, 0, :50].tolist() == [wanted for _, _, wanted in rows]
    alone = model.encode(waveforms[0][None, None], torch.tensor([len(waveforms[0])]))
    assert model.decode(alone)[0, 0, :6].tolist() == pytest.approx(SOUND, abs=1e-5)


@pytest.mark.oracle
def test_distill_gives_the_packages_codes():
    from jobs.parity_oracles import build_oracle

    ours = codec.load("distill-neucodec", weights=folder("distill-neucodec"))
    oracles = {"neucodec": partial(build_oracle, "neucodec", "distill-neucodec", ours)}
    for agreement in compare(ours, oracles, list(load_clips((), 60)), batch_size=4):
        assert agreement.within_bound, agreement
