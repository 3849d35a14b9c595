"""Files that were changed in every way that comes to mind: each is refused in one line, or is a memory in every respect.

The bytes are changed blindly (bits, cuts, pieces moved), and with knowledge of the format: its length, its two headers, and its
arrays, with a right checksum or without.
"""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import raremem
from raremem.checkpoint import _checksum

COUNT = 2500
BACKEND = raremem.get_backend("numpy")
HUGE = [0, -1, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**400]
ODD = [True, False, None, 0.5, 1.0, 2.7, -0.0, 1e308, 1e400, float("nan"), "", "x", "3", "oldest", "F32", [], {}, [[]],
       {"a": 1}, [4], [2, 4], [4, 2, 1], [0], ["keys"], "x" * 5000, "a\nb", "\ud800", "__metadata__", "\0", *HUGE]  # fmt: skip
DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64", "C64", "F4"]
CONTENTS = [0, -1, 1, 2, 127, 128, 2.0**31, np.nan, np.inf, -0.0, 0.5, 1.0001]
SHAPES = [(), (1,), (4,), (5,), (3,), (4, 2), (2, 4), (4, 1), (0,), (4, 0), (4, 2, 1)]


def a_file(path):
    """Of four slots, one of them empty, with hits and ages."""
    config = raremem.MemoryConfig(4, 2, evict="least_hit")
    state = BACKEND.init(config)
    for row, target in (([1, 0], 7), ([0, 1], 8), ([-1, 0], 9), ([1, 0], 7)):
        state, _ = BACKEND.update(config, state, np.array([row], np.float32), np.array([target]))
    raremem.save(path, config, state)
    return path.read_bytes()


def parts(content):
    """Header and data of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def places(tree, path=()):
    """Every place in a tree of JSON, as a path of keys."""
    yield path
    if isinstance(tree, (dict, list)):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))


def edited(tree, dice):
    """A tree of JSON with one place replaced, removed, renamed or added."""
    path = dice.choice(list(places(tree)))
    if not path:
        return dice.choice(ODD)
    tree = parent = json.loads(json.dumps(tree))
    for key in path[:-1]:
        parent = parent[key]
    how = dice.randrange(4)
    if how == 0:
        parent.pop(path[-1])
    elif how == 1 and isinstance(parent, dict):
        parent[dice.choice(["x", "hits", "schema", "slots", "__metadata__", "", "a\nb"])] = dice.choice(ODD)
    elif how == 2 and isinstance(parent, dict):
        parent[dice.choice(["x", "keys", "step", "shape"])] = parent.pop(path[-1])
    else:
        parent[path[-1]] = dice.choice(ODD)
    return tree


def bits(content, dice):
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8])):
        changed[dice.randrange(len(changed))] ^= dice.choice([1 << dice.randrange(8), dice.randrange(1, 256)])
    return bytes(changed)


def cut(content, dice):
    return content[: dice.randrange(len(content))]


def pieces(content, dice):
    """A piece removed, doubled, moved, or replaced by noise."""
    start, end = sorted(dice.choices(range(len(content) + 1), k=2))
    place = dice.randrange(len(content))
    piece = content[start:end]
    without = content[:start] + content[end:]
    return dice.choice([without, without[:place] + piece + without[place:], content[:end] + piece + content[end:],
                        content[:start] + dice.randbytes(end - start) + content[end:], content + piece])  # fmt: skip


def length(content, dice):
    claimed = dice.choice([int.from_bytes(content[:8], "little") + dice.randrange(-9, 9), 10**8, *HUGE])
    return (claimed % 2**64).to_bytes(8, "little") + content[8:]


def outer_header(content, dice):
    """Of safetensors: names, dtypes, shapes, offsets."""
    header, data = parts(content)
    names = [name for name in header if name != "__metadata__"]
    how = dice.randrange(5)
    if how == 0:
        header[dice.choice(names)]["dtype"] = dice.choice(DTYPES)
    elif how == 1:
        header[dice.choice(names)]["shape"] = [dice.choice(HUGE) for _ in range(dice.randrange(4))]
    elif how == 2:
        header[dice.choice(names)]["data_offsets"] = [dice.choice([*HUGE, len(data)]) for _ in range(dice.choice([1, 2, 2, 3]))]
    elif how == 3:
        one, other = dice.sample(names, 2)
        header[one], header[other] = header[other], header[one]
    else:
        header = edited(header, dice)
    return joined(header, data)


def inner_header(content, dice):
    """raremem's own: schema, config, checksum; as it is, or with a right checksum."""
    header, data = parts(content)
    inner = edited(json.loads(header["__metadata__"]["raremem"]), dice)
    if isinstance(inner, dict) and isinstance(inner.get("config"), dict) and "sha256" in inner and dice.random() < 0.7:
        inner["sha256"] = _checksum(inner["config"], safetensors.numpy.load(content))
    header["__metadata__"]["raremem"] = json.dumps(inner)
    return joined(header, data)


def twice(content, dice):
    """A name that stands twice, in either header."""
    header, data = parts(content)
    if dice.random() < 0.5:
        more = f'{{"{dice.choice(list(header))}": {json.dumps(dice.choice(ODD))}, '
        text = json.dumps(header).replace("{", more, 1)
        return joined(text.encode("utf-8", "surrogatepass"), data)
    inner = header["__metadata__"]["raremem"]
    name = dice.choice(["schema", "config", "sha256", "slots", "seed"])
    header["__metadata__"]["raremem"] = inner.replace("{", f'{{"{name}": {json.dumps(dice.choice(ODD))}, ', dice.choice([1, 2]))
    return joined(header, data)


def nested(content, dice):
    """Brackets without end, and numbers of as many digits."""
    header, data = parts(content)
    depth = dice.choice([100, 127, 128, 1000, 5000, 100_000])
    endless = ["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth, "9" * depth, "1e" + "9" * depth]
    text = dice.choice(endless)
    if dice.random() < 0.3:
        return joined(json.dumps(header).replace("{", '{"more": ' + text + ", ", 1).encode(), data)
    inner = header["__metadata__"]["raremem"]
    whole = [text, inner.replace('"schema": ', f'"schema": {text}'), inner.replace('"config": ', f'"config": {text}, "x": ')]
    header["__metadata__"]["raremem"] = dice.choice([*whole, inner.replace('"margin": 0.1', f'"margin": {text}')])
    return joined(header, data)


def arrays(content, dice):
    """Other dtypes, shapes and contents, with a right checksum."""
    header, _ = parts(content)
    inner = json.loads(header["__metadata__"]["raremem"])
    found = safetensors.numpy.load(content)
    for _ in range(dice.choice([1, 1, 2])):
        name = dice.choice(list(found))
        array = found[name].copy()
        how = dice.randrange(5)
        with np.errstate(all="ignore"):
            if how == 0:
                array = array.astype(dice.choice(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u1", "?"]))
            elif how == 1:
                array = np.resize(array, dice.choice(SHAPES))
            elif how == 2:
                array = np.frombuffer(dice.randbytes(array.nbytes), array.dtype).reshape(array.shape)
            elif how == 3 and array.size:
                array = array.astype(np.float64)
                array.flat[dice.randrange(array.size)] = dice.choice(CONTENTS)
                array = array.astype(found[name].dtype)
            else:
                found.pop(name)
                array = None
        if array is not None:
            found[name] = array
        if not found:
            break
    inner["sha256"] = _checksum(inner["config"], found)
    return safetensors.numpy.save(found, {"raremem": json.dumps(inner)})


BLIND = (bits, cut, pieces, length, outer_header, twice)
"""What leaves a right checksum right only if nothing is changed in what it stands for."""


def outcome(path, original):
    """What a load says of a file: "refused", "the same", "another memory", or the name of an error that it should not raise."""
    try:
        config, state = raremem.load(path)
    except raremem.CheckpointError as error:
        message = str(error)
        return "refused" if message.startswith(str(path)) and "\n" not in message and len(message) < 600 else f"told: {message}"
    except BaseException as error:  # a panic in Rust is no Exception
        return f"raised: {type(error).__name__}: {error}"
    portable = BACKEND.to_numpy(state)
    again = path.with_name("again")
    raremem.save(again, config, state)
    assert raremem.load(again)[0] == config
    for name, array in BACKEND.to_numpy(raremem.load(again)[1]).items():
        np.testing.assert_array_equal(array, portable[name])
        assert type(portable["step"]) is int
    return "the same" if again.read_bytes() == original else "another memory"


def outcomes(folder, count, seed):
    """By mutation, how many files came to what."""
    path, plain = folder / "memory", folder / "plain"
    files = Path(__file__).with_name("files")
    originals = [a_file(plain), *((files / f"memory-schema-{schema}.safetensors").read_bytes() for schema in (1, 2, 3))]
    path.touch()
    dice = random.Random(seed)
    table = Counter()
    for number in range(count):
        mutation = (*BLIND, inner_header, nested, arrays)[number % 9]
        old = dice.random() < 0.2
        content = original = originals[dice.randrange(1, 4) if old else 0]
        for _ in range(dice.choice([1, 1, 1, 2])):
            content = mutation(content, dice) if content == original else bits(content, dice) if content else content
        with open(path, "r+b") as file:  # to empty a file first takes longer
            file.write(content)
            file.truncate()
        table[mutation.__name__, old, outcome(path, original)] += 1
    return table


@pytest.mark.parametrize("seed", range(2))
def test_a_changed_file_is_refused_or_a_memory(tmp_path, seed):
    table = outcomes(tmp_path, COUNT, seed)
    assert sum(table.values()) == COUNT
    told = {result for _, _, result in table}
    assert told <= {"refused", "the same", "another memory"}
    blind = {mutation.__name__ for mutation in BLIND}
    assert not any(result == "another memory" for name, old, result in table if name in blind and not old)
    refused = sum(count for (_, _, result), count in table.items() if result == "refused")
    assert 0.6 * COUNT < refused < COUNT
