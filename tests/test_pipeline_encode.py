"""Windows of sound become records in source order, whatever the batches, the memory and the codec do."""

import numpy as np
import pytest
import torch

from codec.null import NullCodec
from pipeline.encode import Encoder, encode
from schemas.audio import AudioSegment, Reject, Utterance
from schemas.tokens import TokenRecord
from tests.pretend_gpu import GPU, plain, pretended, put
from tests.toys import ToyCodec, noise


def utterance(key, extra="{}"):
    return Utterance(str(key), "toy", f"toy::{key}", extra=extra)


def segments(number, seed=0, low=0.1, high=2.0):
    draw = np.random.default_rng(seed)
    return [
        AudioSegment(utterance(f"{seed}-{i}"), noise(draw.uniform(low, high), seed=i), 16_000) for i in range(number)
    ]


def alone(codec, segment):
    waveform = torch.from_numpy(segment.waveform)[None, None]
    return codec.encode(waveform, torch.tensor([waveform.shape[2]]))[0].numpy()


class Small:
    """A codec on a device with memory for so many samples."""

    device = torch.device("cpu")

    def __init__(self, codec, room, error=torch.OutOfMemoryError):
        self.codec, self.spec, self.room, self.error, self.refusals = codec, codec.spec, room, error, 0

    def encode(self, waveforms, num_samples):
        if waveforms.numel() > self.room:
            self.refusals += 1
            raise self.error("CUDA out of memory. Tried to allocate 1 GiB")
        return self.codec.encode(waveforms, num_samples)


class Broken:
    """A codec that does something to the codes of a right one."""

    device = torch.device("cpu")

    def __init__(self, change):
        self.codec, self.change = ToyCodec(), change
        self.spec = self.codec.spec

    def encode(self, waveforms, num_samples):
        return self.change(self.codec.encode(waveforms, num_samples))


@pytest.mark.parametrize("make", [ToyCodec, lambda: ToyCodec(2, 1), NullCodec])
def test_records_come_in_order_with_the_codes_of_each_clip_alone(make):
    codec, items = make(), segments(40)
    items[7:7] = [Reject(utterance("r"), "unreadable", "nothing")]
    results = list(encode([items[:15], items[15:16], items[16:]], codec, 5.0))
    assert [r.utterance for r in results] == [i.utterance for i in items]
    for item, result in zip(items, results, strict=True):
        if isinstance(item, Reject):
            assert result is item
        else:
            assert result.codes.dtype == np.uint16 and result.num_samples == len(item.waveform)
            assert np.array_equal(result.codes, alone(codec, item).astype(np.uint16))


def test_a_batch_does_not_outgrow_its_seconds():
    codec = ToyCodec()
    list(encode([segments(60)], codec, 3.0))
    assert all(rows * samples <= 48_000 for rows, _, samples in codec.batches) and max(b[0] for b in codec.batches) > 1


def test_results_of_a_window_come_before_the_last_window_went_in():
    encoder = Encoder(ToyCodec(), 60.0)
    first, second = segments(5), segments(5, 1)
    assert encoder.push(first) == []  # its last batch is in flight
    assert [r.utterance for r in encoder.push(second)] == [s.utterance for s in first]
    assert [r.utterance for r in encoder.flush()] == [s.utterance for s in second]
    assert encoder.flush() == []


def test_clips_below_one_hop_are_too_short():
    items = [AudioSegment(utterance(n), noise(n / 16_000), 16_000) for n in (319, 320, 1)]
    results = list(encode([items], ToyCodec(), 60.0))
    assert [getattr(r, "reason", "") for r in results] == ["too_short", "", "too_short"]
    assert results[1].codes.shape == (1, 1) and "at least 320 samples" in results[0].message


def of_a_library(said):
    return RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, of_a_library])
def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(error):
    items = segments(64, low=0.9, high=1.0)
    small = Small(ToyCodec(), 60_000, error)
    results = list(encode([items[:32], items[32:]], small, 20.0))
    wanted = list(encode([items], ToyCodec(), 20.0))
    assert len(results) == 64
    assert all(np.array_equal(a.codes, b.codes) for a, b in zip(results, wanted, strict=True))
    assert 1 <= small.refusals <= 5  # what once did not fit is not tried again


def test_a_clip_that_fits_nowhere_stops_the_run_and_says_what_to_do():
    with pytest.raises(MemoryError, match=r"1\.0 s does not fit.*--max-seconds"):
        list(encode([segments(1, low=1.0, high=1.001)], Small(ToyCodec(), 100), 20.0))


def test_other_errors_of_the_codec_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="kernel"):
        list(encode([segments(2)], Broken(lambda codes: (_ for _ in ()).throw(RuntimeError("no kernel image"))), 20.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda codes: codes[:, :, :-1], "wanted"),
        (lambda codes: codes + 70_000, "wanted 0 to 65535"),
        (lambda codes: codes - 70_000, "wanted 0 to 65535"),
        (lambda codes: torch.nn.functional.pad(codes, (0, 3), value=9), "past the clip's end"),
        (lambda codes: codes.repeat(1, 2, 1), "wanted"),
    ],
)
def test_a_codec_that_breaks_its_frame_rule_costs_rejects_not_rows(change, said):
    [result] = encode([segments(1)], Broken(change), 20.0)
    assert isinstance(result, Reject) and result.reason == "bad_codes" and said in result.message


def test_a_refused_piece_goes_by_the_name_of_its_clip():
    piece = AudioSegment(utterance("talk-0002", '{"clip": "talk", "end": 2.0, "start": 1.0}'), noise(0.01), 16_000)
    [result] = encode([[piece]], ToyCodec(), 20.0)
    assert (result.utterance.id, result.reason) == ("talk", "too_short")


def test_nothing_in_nothing_out():
    assert list(encode([], ToyCodec(), 1.0)) == []
    assert isinstance(next(encode([segments(1)], ToyCodec(), 0.001)), TokenRecord)


def test_lengths_are_given_where_a_codec_reads_them():
    """On a GPU, fetching them back from there would wait for the batch before."""

    class Elsewhere(NullCodec):
        def encode(self, waveforms, num_samples):
            assert waveforms.device.type == "meta" and num_samples.device.type == "cpu"
            return super().encode(torch.zeros(waveforms.shape), num_samples)

    assert len(list(encode([segments(5)], Elsewhere("meta"), 3.0))) == 5


def test_on_a_gpu_a_batch_is_queued_without_waiting_for_the_one_before(monkeypatch):
    class Codec(ToyCodec):
        def encode(self, waveforms, num_samples):
            assert waveforms.is_cuda and not num_samples.is_cuda
            queued.append(gpu.waits.copy())
            return put(super().encode(plain(waveforms), num_samples))

    class Event:
        def record(self, stream):
            pass

        def synchronize(self):
            gpu.waits.append("event")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clips, queued = segments(6), []
    with pretended() as gpu:
        records = list(encode([clips[:3], clips[3:]], Codec(device=GPU), batch_seconds=2.0))
    assert queued == [["event"] * max(0, number - 1) for number in range(len(queued))] and len(queued) > 3
    for record, segment in zip(records, clips, strict=True):
        assert np.array_equal(record.codes, alone(ToyCodec(), segment))
