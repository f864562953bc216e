"""Small corpora in their real layouts, with their real defects; every clip is a real, different sound."""

import bz2
import csv
import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from pipeline.index import Index
from pipeline.stream import read_unit
from schemas.audio import Utterance


def utterances(index: Index) -> dict[str, Utterance]:
    """What is known of every clip of an index, rejects among them, by key."""
    return {item.utterance.id: item.utterance for unit in index.units for item in read_unit(unit)}


@dataclass
class Built:
    """What a reader must find: rows by key, rejects by key and reason, labels without sound."""

    corpus: str
    inputs: list[str]
    rows: dict[str, bytes] = field(default_factory=dict)  # key -> stored sound
    rejects: dict[str, str] = field(default_factory=dict)  # key -> reason
    orphans: int = 0


@cache
def sound(number: int, ending: str = "wav", rate: int = 24_000, channels: int = 1, seconds: float = 0.4) -> bytes:
    """Stored bytes of a tone that no other number has."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (110 + 7 * number) * time)
    formats = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", None), "opus": ("OGG", "OPUS")}
    kind, subtype = formats[ending]
    file = io.BytesIO()
    soundfile.write(file, np.repeat(wave[:, None], channels, 1), rate, format=kind, subtype=subtype)
    return file.getvalue()


def tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def put_zip(path: Path, members: list[tuple[str, bytes]], packing: int = zipfile.ZIP_DEFLATED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in members:
            archive.writestr(name, data)


def put_parquet(path: Path, rows: list[dict], rows_per_group: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    arrays = {name: pa.array(values, audio if name == "audio" else None) for name, values in columns.items()}
    info = {"info": {"features": {"audio": {"sampling_rate": 16_000, "_type": "Audio"}}}}
    table = pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=rows_per_group)


def emilia(folder: Path) -> Built:
    """All three layouts; json before and behind its mp3, orphans, ids with `_` and `-`, broken json, a bad speaker."""
    built = Built("emilia", [str(folder)])

    def yodas(video: str, number: int) -> dict:
        name = f"EN_{video}_W{number:06d}"
        return {"_id": name, "text": f" Word {number}.", "duration": 0.4, "speaker": f"EN_{video}_SPEAKER_00"} | {
            "language": "en",
            "dnsmos": 3.25,
            "phone_count": 12,
        }

    first, second, mixed = yodas("0uoizKNJReY", 1), yodas("eOIUf73q_no-", 2), yodas("EOIUf73q_no-", 2)
    bad = yodas("badbadbadba", 3)
    members = []
    for number, label in enumerate((first, second, mixed, bad)):
        pair = [(f"{label['_id']}.mp3", sound(number, "mp3")), (f"{label['_id']}.json", json.dumps(label).encode())]
        members += pair if number % 2 else pair[::-1]
        built.rows[f"emilia_{label['_id']}"] = sound(number, "mp3")
    built.rejects[f"emilia_{bad['_id']}"] = "known_bad"
    del built.rows[f"emilia_{bad['_id']}"]
    members += [("EN_orphanorpha_W000009.json", json.dumps(yodas("orphanorpha", 9)).encode())]
    members += [("EN_nolabelnola_W000001.mp3", sound(5, "mp3"))]
    members += [("EN_brokenbroke_W000001.mp3", sound(6, "mp3")), ("EN_brokenbroke_W000001.json", b'{"text": ')]
    built.rejects |= {"emilia_EN_nolabelnola_W000001": "no_label", "emilia_EN_brokenbroke_W000001": "no_label"}
    built.orphans += 1
    put(folder / "Emilia-YODAS" / "EN" / "EN-B000000.tar", tar_bytes(members))
    put(folder / "known_bad_speakers.txt", f"# by ear\n{bad['speaker']}\n")

    plain = {"id": "DE_B00000_S00000_W000000", "wav": "DE_B00000/x.mp3", "text": " Ja.", "duration": 0.4}
    plain |= {"speaker": "DE_B00000_S00000", "language": "de", "dnsmos": 3.1}
    pair = [(f"{plain['id']}.mp3", sound(10, "mp3")), (f"{plain['id']}.json", json.dumps(plain).encode())]
    put(folder / "Emilia" / "DE" / "DE-B000000.tar", tar_bytes(pair))
    built.rows[f"emilia_{plain['id']}"] = sound(10, "mp3")

    french = plain | {"id": "FR_B00001_S00001_W000001", "speaker": "FR_B00001_S00001", "language": "fr"}
    pair = [(f"{french['id']}.json", json.dumps(french).encode()), (f"{french['id']}.mp3", sound(11, "mp3"))]
    put(folder / "FR" / "FR-B000000.tar", tar_bytes(pair))
    built.rows[f"emilia_{french['id']}"] = sound(11, "mp3")

    lines, nested = [], []
    for number in range(3):
        id = f"ZH_B00002_S00000_W{number:06d}"
        wav = f"ZH_B00002/ZH_B00002_S00000/mp3/{id}.mp3"
        lines.append(
            json.dumps({"id": id, "wav": wav, "text": " 你好", "language": "zh", "speaker": "ZH_B00002_S00000"})
        )
        if number < 2:
            nested.append((wav, sound(20 + number, "mp3")))
            built.rows[f"emilia_{id}"] = sound(20 + number, "mp3")
    packed = gzip.compress(tar_bytes(nested))
    for part in range(3):  # cut into pieces, as it was published
        cut = len(packed) // 3 + 1
        put(folder / "ZH" / f"ZH_B00002.tar.gz.{part}", packed[part * cut : (part + 1) * cut])
    put(folder / "ZH" / "ZH_B00002.jsonl", "\n".join(lines) + "\n")
    built.orphans += 1
    return built


def mls(folder: Path) -> Built:
    """flac and opus archives with padded metainfo and labels behind the sound, and both Parquet forms."""
    built = Built("mls", [str(folder)])
    for ending, kind, split, first in (("flac", "", "train", 0), ("opus", "_opus", "dev", 10)):
        top, ids = f"mls_italian{kind}", [f"1595_1477{first}_{number:06d}" for number in range(3)]
        members = []
        for number, id in enumerate(ids[:2]):
            data = sound(first + number, ending, 48_000 if ending == "opus" else 16_000)
            members.append((f"{top}/{split}/audio/1595/1477{first}/{id}.{ending}", data))
            built.rows[f"mls_{id}"] = data
        lonely = f"1595_1477{first}_000099"
        members.append((f"{top}/{split}/audio/1595/1477{first}/{lonely}.{ending}", sound(first + 9, ending, 48_000)))
        built.rejects[f"mls_{lonely}"] = "no_label"
        text = "".join(f"{id}\tquell' altra {n}\n" for n, id in enumerate(ids)) + "no tab here\n1\ttwo\ttabs\n"
        segments = "".join(f"{id}\thttp://x/{id}.mp3\t10.0\t10.4\n" for id in ids)
        meta = f" SPEAKER | GENDER | PARTITION | MINUTES | BOOK ID | TITLE | CHAPTER \n 1595  | F | {split} | 1.0 | "
        meta += f"1477{first}  | Divina  | Canto 1 \n 9 | M | secret | 1.0 | 8 | T | C\n"
        members += [
            (f"{top}/{split}/transcripts.txt", text.encode()),
            (f"{top}/{split}/segments.txt", segments.encode()),
        ]
        members += [(f"{top}/metainfo.txt", meta.encode())]
        members += [(f"{top}/train/limited_supervision/9hr/handles.txt", f"{ids[0]}\n".encode())]
        put(folder / f"{top}.tar.gz", gzip.compress(tar_bytes(members)))
        built.orphans += 1

    rows = [
        {
            "audio": {"bytes": sound(30 + n, "flac", 16_000), "path": f"2_3_{n:06d}.flac"},
            "original_path": "http://x",
            "begin_time": 1.0,
            "end_time": 1.4,
            "transcript": f"eins {n}\n",
            "audio_duration": 0.4,
            "speaker_id": "2",
            "chapter_id": "3",
            "file": f"2_3_{n:06d}.flac",
            "id": f"2_3_{n:06d}",
        }
        for n in range(3)
    ]
    put_parquet(folder / "hub" / "german" / "train-00000-of-00001.parquet", rows)
    put_parquet(folder / "hub" / "german" / "9_hours-00000-of-00001.parquet", rows[:2])
    built.rows |= {f"mls_{row['id']}": row["audio"]["bytes"] for row in rows}
    english = [
        {"audio": {"bytes": sound(40, "flac", 16_000), "path": "4_5_000000.flac"}, "original_path": "http://x"}
        | {
            "begin_time": 1.0,
            "end_time": 1.4,
            "transcript": "one",
            "audio_duration": 0.4,
            "speaker_id": "4",
            "book_id": "5",
        }
    ]
    put_parquet(folder / "eng" / "data" / "test-00000-of-00001.parquet", english)
    built.rows["mls_4_5_000000"] = english[0]["audio"]["bytes"]
    return built


def libritts_r(folder: Path) -> Built:
    """Underscore archive, hyphen folders; a Mac's shadow files, the corrupt wav, failed restorations, a lost text."""
    built = Built("libritts_r", [str(folder)])
    base, members = "LibriTTS_R/train-clean-100/103/1241", []
    for number in range(5):
        id = f"103_1241_000000_{number:06d}"
        members.append((f"{base}/{id}.wav", sound(number)))
        members.append((f"{base}/._{id}.wav", b"\0\5\x16\7Mac OS X"))
        if number != 3:
            members.append((f"{base}/{id}.normalized.txt", f"Mister {number}.\n".encode()))
        members.append((f"{base}/{id}.original.txt", f"Mr. {number}.".encode()))
        built.rows[f"libritts_r_{id}"] = sound(number)
    for number, reason in ((3, "no_label"), (4, "known_bad")):
        del built.rows[f"libritts_r_103_1241_000000_{number:06d}"]
        built.rejects[f"libritts_r_103_1241_000000_{number:06d}"] = reason
    corrupt = "1092_134562_000013_000004"
    place = f"LibriTTS_R/train-clean-100/1092/134562/{corrupt}"
    members += [(f"{place}.wav", b"RIFF"), (f"{place}.normalized.txt", b"Gone.")]
    built.rejects[f"libritts_r_{corrupt}"] = "known_bad"
    members += [(f"{base}/103_1241_000000_000077.normalized.txt", b"No sound.")]
    built.orphans = 1
    put(folder / "train_clean_100.tar.gz", gzip.compress(tar_bytes(members)))
    failed = "libritts_r_failed_speech_restoration_examples"
    bad = [
        (f"{failed}/train-clean-100_bad_sample_list.txt", b"./train-clean-100/103/1241/103_1241_000000_000004.wav\n")
    ]
    put(folder / f"{failed}.tar.gz", gzip.compress(tar_bytes(bad)))
    put(folder / "doc.tar.gz", gzip.compress(tar_bytes([("LibriTTS_R/speakers.tsv", b"103\tF\tX\n")])))
    row = {
        "audio": {"bytes": sound(9), "path": "7_8_000000_000000.wav"},
        "text_normalized": "Doctor.",
        "text_original": "Dr.",
    }
    row |= {"speaker_id": "7", "path": "/home/x/7.wav", "chapter_id": "8", "id": "7_8_000000_000000"}
    put_parquet(folder / "data" / "dev.clean" / "dev.clean-00000-of-00001.parquet", [row])
    built.rows["libritts_r_7_8_000000_000000"] = sound(9)
    return built


def fleurs_r(folder: Path) -> Built:
    """A tsv beside its archive: 7 columns, no header, a 6-column line, a lone quote, ids that repeat, both misses."""
    built = Built("fleurs_r", [str(folder)])
    for locale, split in (("af_za", "test"), ("cmn_hans_cn", "train")):
        lines, members = [], []
        for number in range(5):
            name = f"10004088536354{locale[:2]}{number}.wav".replace("af", "1").replace("cm", "2")
            raw = '"Hallo, wêreld' if number == 0 else f"Sin {number}."
            cells = ["7" if number < 2 else str(number), name, raw, "sin", "s i n |", "6400", "FEMALE"]
            lines.append("\t".join(cells[:6] if number == 3 else cells))
            if number != 4:
                members.append((f"{split}/{name}", sound(number)))
                built.rows[f"fleurs_r_{name[:-4]}"] = sound(number)
            if number == 3:
                del built.rows[f"fleurs_r_{name[:-4]}"]
                built.rejects[f"fleurs_r_{name[:-4]}"] = "no_label"
        built.orphans += 1  # number 4: a line without its sound
        members.append((f"{split}/999{locale[0]}.wav", sound(9)))
        built.rejects[f"fleurs_r_999{locale[0]}"] = "no_label"
        put(folder / "data" / locale / f"{split}.tsv", "\n".join(lines) + "\n")
        put(folder / "data" / locale / "audio" / f"{split}.tar.gz", gzip.compress(tar_bytes(members)))
    return built


CV_COLUMNS = {
    "13.0-2023-03-09": "client_id path sentence up_votes down_votes age gender accents variant locale segment",
    "17.0-2024-03-15": "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents "
    "variant locale segment",
    "25.0-2026-03-09": "client_id path sentence_id sentence sentence_domain up_votes down_votes variant age gender "
    "accents locale segment",
}


def common_voice(folder: Path) -> Built:
    """Three releases by their headers, quotes that are text, a clip of no bytes, stereo, a clip in two tables."""
    built = Built("common_voice", [str(folder)])
    for place, (release, columns) in enumerate(CV_COLUMNS.items()):
        locale = ("br", "zh-CN", "tr")[place]
        names, clips, tables = columns.split(), {}, {"train": [], "test": [], "validated": [], "other": []}

        def line(number: int, sentence: str, locale: str = locale, names: list[str] = names) -> str:
            row = {"client_id": f"c{number}", "path": f"common_voice_{locale}_{number}.mp3", "sentence": sentence}
            return "\t".join(
                (row | {"locale": locale, "up_votes": "2", "age": "fourties"}).get(name, "") for name in names
            )

        for number in range(6):
            text = 'Er sagte "nein' if number == 1 else f'"Satz {number}"'
            channels, rate = (2, 44_100) if number == 2 else (1, 48_000)
            clips[number] = b"" if number == 3 else sound(10 * place + number, "mp3", rate, channels)
            tables["other" if number == 5 else "validated"].append(line(number, text))
            if number < 2:
                tables[("train", "test")[number]].append(line(number, text))
            built.rows[f"common_voice_common_voice_{locale}_{number}"] = clips[number]
        empty = f"common_voice_common_voice_{locale}_3"
        del built.rows[empty]
        built.rejects[empty] = "empty"
        tables["other"] += [line(99, "No sound."), "one\tcolumn too few"]
        clips[50] = sound(10 * place + 7, "mp3", 48_000)
        built.rejects[f"common_voice_common_voice_{locale}_50"] = "no_label"
        built.orphans += 1
        top = f"cv-corpus-{release}/{locale}"
        members = [(f"{top}/clips/common_voice_{locale}_{number}.mp3", data) for number, data in clips.items()]
        header = "\t".join(names)
        parts = [(f"{top}/{name}.tsv", "\n".join([header, *lines, ""]).encode()) for name, lines in tables.items()]
        parts += [(f"{top}/reported.tsv", b"sentence\tsentence_id\tlocale\treason\n")]
        parts += [(f"{top}/clip_durations.tsv", f"clip\tduration[ms]\ncommon_voice_{locale}_0.mp3\t400\n".encode())]
        mark = "1774205200568-" if place == 2 else ""
        half = len(parts) // 2  # labels on both sides of the sound
        data = tar_bytes(parts[:half] + members + parts[half:])
        put(folder / f"{mark}cv-corpus-{release}-{locale}.tar.gz", gzip.compress(data))
    return built


def hui(folder: Path) -> Built:
    """Zips side by side: csv quoting, books with underscores, two speakers of one book, a name that needs UTF-8."""
    built = Built("hui", [str(folder)])
    speakers = {"Karlsson": ["Karlsson"], "others_Clean": ["Käthe_Öz", "Bernd"]}
    for place, (archive, names) in enumerate(speakers.items()):
        members = []
        for offset, speaker in enumerate(names):
            book = f"der_blinde_{place}{offset}"
            texts = ['Er sagte "nein"', "Teil eins | Teil zwei", "Ganz einfach", "Ohne Ton"]
            file = io.StringIO()
            csv.writer(file, delimiter="|", lineterminator="\n").writerows(
                [f"{book}_01_f{number:06d}", text] for number, text in enumerate(texts)
            )
            for number in range(3):
                id, data = f"{book}_01_f{number:06d}", sound(20 * place + 5 * offset + number, "wav", 44_100)
                members.append((f"{speaker}/{book}/wavs/{id}.wav", data))
                built.rows[f"hui_{id}"] = data
            members.append((f"{speaker}/{book}/metadata.csv", file.getvalue().encode()))
            members.append((f"{speaker}/{book}/wavs/{book}_02_f000000.wav", sound(9)))
            built.rejects[f"hui_{book}_02_f000000"] = "no_label"
            built.orphans += 1
        put_zip(folder / f"{archive}.zip", members, zipfile.ZIP_DEFLATED if place else zipfile.ZIP_STORED)
    put_zip(folder / "datasetStatistic.zip", [("overview.csv", b"id|duration\n")])
    return built


def cmu_arctic(folder: Path) -> Built:
    """The same ids for two speakers, a prompt without its wav, quotes inside a prompt."""
    built = Built("cmu_arctic", [str(folder)])
    for place, speaker in enumerate(("bdl", "slt")):
        top, members, prompts = f"cmu_us_{speaker}_arctic", [], []
        for number in range(4):
            id = f"arctic_a{number + 1:04d}"
            prompts.append(f'( {id} "Author {number}, he said \\"no\\", etc." )\n')
            if number < 3:
                members.append((f"{top}/wav/{id}.wav", sound(10 * place + number, "wav", 16_000)))
                built.rows[f"cmu_arctic_{speaker}_{id}"] = members[-1][1]
        members.append((f"{top}/lab/arctic_a0001.lab", b"0 1 pau"))
        members.append((f"{top}/orig/arctic_a0001.wav", sound(50)))
        members.append((f"{top}/etc/txt.done.data", "".join(prompts).encode()))
        built.orphans += 1
        put(folder / f"{top}.tar.bz2", bz2.compress(tar_bytes(members)))
    return built


def librispeech(folder: Path) -> Built:
    """First space splits id from text, also where the text is one word; and the Hub's Parquet form."""
    built = Built("librispeech", [str(folder)])
    base, members = "LibriSpeech/test-clean/61/70968", [("LibriSpeech/SPEAKERS.TXT", b"; no labels\n")]
    texts = ["HE BEGAN A CONFUSED COMPLAINT", "YES", "NOBODY HEARS THIS"]
    for number in range(2):
        id = f"61-70968-{number:04d}"
        members.append((f"{base}/{id}.flac", sound(number, "flac", 16_000)))
        built.rows[f"librispeech_{id}"] = members[-1][1]
    members.append((f"{base}/61-70968-0009.flac", sound(9, "flac", 16_000)))
    built.rejects["librispeech_61-70968-0009"] = "no_label"
    lines = "".join(f"61-70968-{number:04d} {text}\n" for number, text in enumerate(texts))
    members.append((f"{base}/61-70968.trans.txt", lines.encode()))
    built.orphans = 1
    put(folder / "test-clean.tar.gz", gzip.compress(tar_bytes(members)))
    row = {
        "file": "1-2-0000.flac",
        "audio": {"bytes": sound(5, "flac", 16_000), "path": "1-2-0000.flac"},
        "text": "HUB",
    }
    put_parquet(
        folder / "clean" / "test" / "0000.parquet", [row | {"speaker_id": 1, "chapter_id": 2, "id": "1-2-0000"}]
    )
    built.rows["librispeech_1-2-0000"] = row["audio"]["bytes"]
    return built


def own_folder(folder: Path) -> Built:
    """Loose files of any format with an audiofolder table, LJSpeech files in a folder below, a WebDataset shard."""
    built = Built("folder", [str(folder)])
    lines = ["file_name,text,speaker,language,license,mood"]
    for number, ending in enumerate(("wav", "flac", "mp3", "opus")):
        put(folder / "clips" / f"a.{number}.{ending}", sound(number, ending))
        lines.append(f'clips/a.{number}.{ending},"Hello, {number}",ann,en-GB,CC0-1.0,glad')
        built.rows[f"folder_clips_a_{number}_{ending}"] = sound(number, ending)
    put(folder / "metadata.csv", "\n".join([*lines, "clips/gone.wav,Nothing,ann,en,CC0-1.0,sad", ""]))
    built.orphans = 1
    put(folder / "lj" / "wavs" / "LJ001-0001.wav", sound(20))
    put(folder / "lj" / "wavs" / "LJ001-0002.wav", sound(21))
    put(folder / "lj" / "wavs" / "._LJ001-0001.wav", b"shadow")
    put(folder / "lj" / "metadata.csv", 'LJ001-0001|Printing, "in|Printing, in\n')
    built.rows |= {f"folder_lj_wavs_LJ001-000{n}_wav": sound(19 + n) for n in (1, 2)}
    members = [("k1.flac", sound(30, "flac")), ("k1.json", b'{"text": "one", "speaker": "bob", "licence": "CC0-1.0"}')]
    members += [("k2.txt", b"two\n"), ("k2.opus", sound(31, "opus"))]
    put(folder / "shard-000.tar", tar_bytes(members))
    built.rows |= {"folder_k1_flac": members[0][1], "folder_k2_opus": members[3][1]}
    return built


def own_parquet(folder: Path) -> Built:
    """A table with sound, without, and with the name of a file beside it; names that lead out are not followed."""
    built = Built("parquet", [str(folder / "in")])
    put(folder / "in" / "beside.wav", sound(7))
    put(folder / "outside.wav", sound(8))
    cells = [
        {"bytes": sound(0), "path": "a.wav"},
        {"bytes": None, "path": None},
        {"bytes": b"", "path": "c.wav"},
        {"bytes": None, "path": "beside.wav"},
        {"bytes": None, "path": "../outside.wav"},
        {"bytes": None, "path": str(folder / "outside.wav")},
        {"bytes": sound(6, "flac"), "path": "g.flac"},
    ]
    rows = [{"id": f"r{n}", "audio": cell, "sentence": f"Row {n}", "rank": n} for n, cell in enumerate(cells)]
    put_parquet(folder / "in" / "train-00000-of-00001.parquet", rows)
    built.rows = {"parquet_r0": sound(0), "parquet_r3": sound(7), "parquet_r6": sound(6, "flac")}
    built.rejects = {"parquet_r1": "missing", "parquet_r2": "empty", "parquet_r4": "missing", "parquet_r5": "missing"}
    return built


BUILDERS = {
    "emilia": emilia,
    "mls": mls,
    "libritts_r": libritts_r,
    "fleurs_r": fleurs_r,
    "common_voice": common_voice,
    "hui": hui,
    "cmu_arctic": cmu_arctic,
    "librispeech": librispeech,
    "folder": own_folder,
    "parquet": own_parquet,
}
