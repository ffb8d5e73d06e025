"""The filters of orthogonal and biorthogonal wavelets."""

import importlib
import math
import re
from typing import NamedTuple

# fmt: off
# Low-pass reconstruction filters; those of Daubechies have the least phase, as in PyWavelets. Each is rounded once from
# a spectral factorisation in sixty digits.
_ORTHOGONAL: dict[str, tuple[float, ...]] = {
    "db2": (0.48296291314453416, 0.8365163037378079, 0.2241438680420134, -0.12940952255126037),
    "db3": (0.33267055295008263, 0.8068915093110925, 0.45987750211849154, -0.13501102001025458, -0.08544127388202666,
            0.03522629188570953),
    "db4": (0.2303778133088965, 0.7148465705529157, 0.6308807679298589, -0.027983769416859854, -0.18703481171909309,
            0.030841381835560764, 0.0328830116668852, -0.010597401785069032),
    "db5": (0.16010239797419293, 0.6038292697971896, 0.7243085284377729, 0.13842814590132074, -0.24229488706638203,
            -0.032244869584638375, 0.07757149384004572, -0.006241490212798274, -0.012580751999081999,
            0.0033357252854737712),
    "db6": (0.11154074335010947, 0.49462389039845306, 0.7511339080210954, 0.31525035170919763, -0.22626469396543983,
            -0.12976686756726194, 0.09750160558732304, 0.027522865530305727, -0.03158203931748603,
            0.0005538422011614961, 0.004777257510945511, -0.0010773010853084796),
    "db7": (0.07785205408500918, 0.3965393194819173, 0.7291320908462351, 0.4697822874051931, -0.14390600392856498,
            -0.22403618499387498, 0.07130921926683026, 0.08061260915108308, -0.03802993693501441,
            -0.01657454163066688, 0.01255099855609984, 0.0004295779729213665, -0.0018016407040474908,
            0.00035371379997452024),
    "db8": (0.05441584224310401, 0.31287159091429995, 0.6756307362972898, 0.5853546836542067, -0.015829105256349306,
            -0.2840155429615469, 0.0004724845739132828, 0.12874742662047847, -0.017369301001807547,
            -0.044088253930794755, 0.013981027917398282, 0.008746094047405777, -0.004870352993451574,
            -0.00039174037337694705, 0.0006754494064505693, -0.00011747678412476953),
    "sym4": (0.032223100604051466, -0.012603967262031304, -0.09921954357663353, 0.29785779560530606,
             0.8037387518051321, 0.497618667632775, -0.029635527646002493, -0.07576571478950221),
    "coif1": (-0.07273261951252645, 0.3378976624574818, 0.8525720202116004, 0.3848648468648578, -0.07273261951252645,
              -0.015655728135791993),
}
# Right halves, from the middle tap on, of the symmetric (reconstruction, decomposition) low-pass filters.
_SYMMETRIC: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "bior4.4": (
        (0.7884856164056644, 0.4180922732222122, -0.04068941760955844, -0.06453888262893843),
        (0.8526986790094034, 0.37740285561265374, -0.1106244044184234, -0.02384946501938, 0.03782845550699546),
    ),
    "bior5.5": (
        (0.899506109749091, 0.47680326579781895, -0.09350469740066429, -0.13670658466396474, -0.0026949668806074004,
         0.013456709459419522),
        (0.736660181427535, 0.345605281955886, -0.054463788468356235, 0.007948108637387725, 0.03968708834786253),
    ),
}
# fmt: on
_SPLINES = ("1.1", "1.3", "1.5", "2.2", "2.4", "2.6", "2.8", "3.1", "3.3", "3.5", "3.7", "3.9")
_BUILT_IN = ("haar", *_ORTHOGONAL, *(f"bior{orders}" for orders in _SPLINES), *_SYMMETRIC)


class FilterBank(NamedTuple):
    """The four filters of a wavelet, of one even length, named and ordered as PyWavelets does."""

    dec_lo: tuple[float, ...]
    dec_hi: tuple[float, ...]
    rec_lo: tuple[float, ...]
    rec_hi: tuple[float, ...]


def filter_bank(wavelet: str) -> FilterBank:
    """Return the filters of a wavelet by the name that it has in PyWavelets.

    Daubechies, "Ten Lectures on Wavelets", SIAM 1992, chapters 6 and 8; Cohen, Daubechies and Feauveau, "Biorthogonal
    Bases of Compactly Supported Wavelets", Communications on Pure and Applied Mathematics 45(5), 1992. The values agree
    with PyWavelets to 1e-12, which prints sym4, bior4.4 and bior5.5 with that error.

    Args:
        wavelet: built in are haar (db1, bior1.1), db2 to db8, sym4, coif1 and biorX.Y for X up to 5; chX.Y is another
            name of biorX.Y. Any other discrete wavelet is asked of PyWavelets, where that is installed.

    Raises:
        ValueError: if the name is neither built in nor known to an installed PyWavelets.

    Examples:
        >>> filter_bank("bior2.2").rec_lo
        (0.0, 0.3535533905932738, 0.7071067811865476, 0.3535533905932738, 0.0, 0.0)
    """
    name = re.sub(r"^ch(?=\d)", "bior", wavelet)
    if name in ("haar", "db1"):
        name = "bior1.1"
    if name in _ORTHOGONAL:
        return _bank(_ORTHOGONAL[name], _ORTHOGONAL[name][::-1])
    if name in _SYMMETRIC:
        rec, dec = ((*half[:0:-1], *half) for half in _SYMMETRIC[name])
        return _bank(*_padded(rec, dec))
    if name.removeprefix("bior") in _SPLINES:
        return _bank(*_padded(*_splines(int(name[4]), int(name[6]))))
    return _from_pywavelets(name)


def _bank(rec_lo: tuple[float, ...], dec_lo: tuple[float, ...]) -> FilterBank:
    """Each high-pass filter is the other side's low-pass filter with alternating signs."""
    rec_hi = tuple(-tap if index % 2 else tap for index, tap in enumerate(dec_lo))
    dec_hi = tuple(tap if index % 2 else -tap for index, tap in enumerate(rec_lo))
    return FilterBank(dec_lo, dec_hi, rec_lo, rec_hi)


def _splines(order: int, dual_order: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The binomial filter of `order` zeros at -1, and its shortest dual with `dual_order` zeros there.

    With c = cos(w / 2) and s = sin(w / 2), the dual is c^dual_order * sum_m C(half - 1 + m, m) s^(2 m) over m < half,
    half = (order + dual_order) / 2. Integers keep it exact: s^2 has the taps (-1, 2, -1) / 4.
    """
    half = (order + dual_order) // 2
    dual = [0] * (2 * half - 1)
    for m in range(half):
        for index, tap in enumerate(_product(*[(-1, 2, -1)] * m)):
            dual[half - 1 - m + index] += math.comb(half - 1 + m, m) * 4 ** (half - 1 - m) * tap
    dual = _product(dual, *[(1, 1)] * dual_order)
    rec = _product(*[(1, 1)] * order)
    rec_scale, dec_scale = 2.0**order, 2.0**dual_order * 4 ** (half - 1)
    return tuple(math.sqrt(2) * tap / rec_scale for tap in rec), tuple(math.sqrt(2) * tap / dec_scale for tap in dual)


def _product(*filters: "list[int] | tuple[int, ...]") -> list[int]:
    """The coefficients of a product of polynomials."""
    product = [1]
    for taps in filters:
        longer = [0] * (len(product) + len(taps) - 1)
        for i, one in enumerate(product):
            for j, other in enumerate(taps):
                longer[i + j] += one * other
        product = longer
    return product


def _padded(rec: tuple[float, ...], dec: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Zeros that give both one even length, with the middles of odd filters side by side as in PyWavelets."""
    length = max(len(rec), len(dec))
    length += length % 2

    def placed(taps: tuple[float, ...], shift: int) -> tuple[float, ...]:
        before = (length - len(taps)) // 2 + shift
        return (0.0,) * before + taps + (0.0,) * (length - before - len(taps))

    return placed(rec, 0), placed(dec, len(dec) % 2)


def _from_pywavelets(name: str) -> FilterBank:
    try:
        return FilterBank(*map(tuple, importlib.import_module("pywt").Wavelet(name).filter_bank))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"no wavelet {name!r} is built in, only {', '.join(_BUILT_IN)}: "
            "install PyWavelets, if it is another of its discrete wavelets"
        ) from error
    except ValueError as error:
        raise ValueError(f"neither built in nor a discrete wavelet of PyWavelets: {name!r}") from error
