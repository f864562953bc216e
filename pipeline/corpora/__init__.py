"""The corpora that neutok reads: one file each, one line each here."""

from pipeline.corpora import (
    cmu_arctic,
    common_voice,
    emilia,
    fleurs_r,
    folder,
    hui,
    librispeech,
    libritts_r,
    mls,
    parquet,
)
from pipeline.sources import Corpus

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        cmu_arctic.CORPUS,
        common_voice.CORPUS,
        emilia.CORPUS,
        fleurs_r.CORPUS,
        folder.CORPUS,
        hui.CORPUS,
        libritts_r.CORPUS,
        librispeech.CORPUS,
        mls.CORPUS,
        parquet.CORPUS,
    )
}
