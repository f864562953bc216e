"""The corpora that neutok reads: one file each, one line each here."""

from pipeline.corpora import emilia, folder, librispeech
from pipeline.sources import Corpus

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        emilia.CORPUS,
        folder.CORPUS,
        librispeech.CORPUS,
    )
}
