"""What is made once for all tests: the published NeuCodec size with seeded weights (2.5 GB, some ten seconds)."""

import warnings

import pytest

import codec


@pytest.fixture(scope="session")
def neucodec_seeded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return codec.load("neucodec", weights="seeded")
