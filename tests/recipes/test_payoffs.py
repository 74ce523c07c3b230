"""Payoffs as spreadsheets write them."""

import codecs

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosum.recipes.common.payoffs import payoff_matrix, read_table

WANTED = [[0.0, -1.5], [1.5, 0.0]]


@pytest.mark.parametrize(
    "content",
    [
        b"0,-1.5\n1.5,0\n",
        codecs.BOM_UTF8 + b"0,-1.5\r\n1.5,0\r\n",
        b"0;-1.5\n1.5;0\n",
        b"0;-1,5\n1,5;0\n",
        b"0\t-1,5\n1,5\t0\n",
        b"0, -1.5,\n1.5, 0,\n",
        b"0;-1,5;;\n\n1,5;0;;\n;;;\n\n",
        b'"0","-1.5"\n"1.5","0"\n',
        b"# payoffs\n0,-1.5\n1.5,0  # second\n",
        "0\t-1,5\n1,5\t0\n".encode("utf-16"),
    ],
)
def test_tables_as_spreadsheets_write_them(content, tmp_path):
    (tmp_path / "game.csv").write_bytes(content)
    assert payoff_matrix(str(tmp_path / "game.csv"))[0].tolist() == WANTED


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"1,2\n3\n", b"1,,2\n", b"\xff\xfe\xff", b"\xe9,1\n", b"1_0\n", b"1;nan\n"]
)
def test_what_is_no_table_is_refused_with_what_is_expected(content, tmp_path):
    path = tmp_path / "game.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"game.csv: expected (lines of numbers|a matrix of finite numbers)"):
        payoff_matrix(str(path))


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n), min_size=1
        )
    ),
    st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", ","), ("\t", ".")]),
    st.booleans(),
)
def test_every_table_comes_back_to_the_bit(table, marks, trailing):
    delimiter, decimal = marks
    lines = (delimiter.join(repr(x).replace(".", decimal) for x in row) + delimiter * trailing for row in table)
    if delimiter != "," or decimal == ".":
        assert np.array_equal(read_table("\n".join(lines).encode()), table) or len(table[0]) == 1
