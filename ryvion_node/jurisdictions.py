"""ISO 3166-1 alpha-2 codes, and the groups of them that a request may name.

The list is of 2026: 249 codes. XK (Kosovo, user-assigned, in wide use) is taken as well.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from ryvion_protocol.constants import MAX_JURISDICTIONS

_TABLE = """
AD Andorra|AE United Arab Emirates|AF Afghanistan|AG Antigua and Barbuda|AI Anguilla|AL Albania|AM Armenia
AO Angola|AQ Antarctica|AR Argentina|AS American Samoa|AT Austria|AU Australia|AW Aruba|AX Åland Islands
AZ Azerbaijan|BA Bosnia and Herzegovina|BB Barbados|BD Bangladesh|BE Belgium|BF Burkina Faso|BG Bulgaria
BH Bahrain|BI Burundi|BJ Benin|BL Saint Barthélemy|BM Bermuda|BN Brunei Darussalam|BO Bolivia
BQ Bonaire, Sint Eustatius and Saba|BR Brazil|BS Bahamas|BT Bhutan|BV Bouvet Island|BW Botswana|BY Belarus
BZ Belize|CA Canada|CC Cocos (Keeling) Islands|CD Congo (Democratic Republic)|CF Central African Republic
CG Congo|CH Switzerland|CI Côte d'Ivoire|CK Cook Islands|CL Chile|CM Cameroon|CN China|CO Colombia
CR Costa Rica|CU Cuba|CV Cabo Verde|CW Curaçao|CX Christmas Island|CY Cyprus|CZ Czechia|DE Germany
DJ Djibouti|DK Denmark|DM Dominica|DO Dominican Republic|DZ Algeria|EC Ecuador|EE Estonia|EG Egypt
EH Western Sahara|ER Eritrea|ES Spain|ET Ethiopia|FI Finland|FJ Fiji|FK Falkland Islands|FM Micronesia
FO Faroe Islands|FR France|GA Gabon|GB United Kingdom|GD Grenada|GE Georgia|GF French Guiana|GG Guernsey
GH Ghana|GI Gibraltar|GL Greenland|GM Gambia|GN Guinea|GP Guadeloupe|GQ Equatorial Guinea|GR Greece
GS South Georgia and the South Sandwich Islands|GT Guatemala|GU Guam|GW Guinea-Bissau|GY Guyana|HK Hong Kong
HM Heard Island and McDonald Islands|HN Honduras|HR Croatia|HT Haiti|HU Hungary|ID Indonesia|IE Ireland
IL Israel|IM Isle of Man|IN India|IO British Indian Ocean Territory|IQ Iraq|IR Iran|IS Iceland|IT Italy
JE Jersey|JM Jamaica|JO Jordan|JP Japan|KE Kenya|KG Kyrgyzstan|KH Cambodia|KI Kiribati|KM Comoros
KN Saint Kitts and Nevis|KP North Korea|KR South Korea|KW Kuwait|KY Cayman Islands|KZ Kazakhstan|LA Laos
LB Lebanon|LC Saint Lucia|LI Liechtenstein|LK Sri Lanka|LR Liberia|LS Lesotho|LT Lithuania|LU Luxembourg
LV Latvia|LY Libya|MA Morocco|MC Monaco|MD Moldova|ME Montenegro|MF Saint Martin (French part)|MG Madagascar
MH Marshall Islands|MK North Macedonia|ML Mali|MM Myanmar|MN Mongolia|MO Macao|MP Northern Mariana Islands
MQ Martinique|MR Mauritania|MS Montserrat|MT Malta|MU Mauritius|MV Maldives|MW Malawi|MX Mexico|MY Malaysia
MZ Mozambique|NA Namibia|NC New Caledonia|NE Niger|NF Norfolk Island|NG Nigeria|NI Nicaragua|NL Netherlands
NO Norway|NP Nepal|NR Nauru|NU Niue|NZ New Zealand|OM Oman|PA Panama|PE Peru|PF French Polynesia
PG Papua New Guinea|PH Philippines|PK Pakistan|PL Poland|PM Saint Pierre and Miquelon|PN Pitcairn
PR Puerto Rico|PS Palestine|PT Portugal|PW Palau|PY Paraguay|QA Qatar|RE Réunion|RO Romania|RS Serbia
RU Russia|RW Rwanda|SA Saudi Arabia|SB Solomon Islands|SC Seychelles|SD Sudan|SE Sweden|SG Singapore
SH Saint Helena, Ascension and Tristan da Cunha|SI Slovenia|SJ Svalbard and Jan Mayen|SK Slovakia
SL Sierra Leone|SM San Marino|SN Senegal|SO Somalia|SR Suriname|SS South Sudan|ST Sao Tome and Principe
SV El Salvador|SX Sint Maarten (Dutch part)|SY Syria|SZ Eswatini|TC Turks and Caicos Islands|TD Chad
TF French Southern Territories|TG Togo|TH Thailand|TJ Tajikistan|TK Tokelau|TL Timor-Leste|TM Turkmenistan
TN Tunisia|TO Tonga|TR Türkiye|TT Trinidad and Tobago|TV Tuvalu|TW Taiwan|TZ Tanzania|UA Ukraine|UG Uganda
UM United States Minor Outlying Islands|US United States|UY Uruguay|UZ Uzbekistan|VA Holy See
VC Saint Vincent and the Grenadines|VE Venezuela|VG Virgin Islands (British)|VI Virgin Islands (U.S.)
VN Viet Nam|VU Vanuatu|WF Wallis and Futuna|WS Samoa|XK Kosovo|YE Yemen|YT Mayotte|ZA South Africa|ZM Zambia
ZW Zimbabwe
"""

COUNTRIES: Final[dict[str, str]] = {
    entry[:2]: entry[3:] for line in _TABLE.strip().splitlines() for entry in line.split("|")
}
"""Code -> English short name."""

_EU = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "EU": tuple(sorted(_EU.split())),
    "EEA": tuple(sorted([*_EU.split(), "IS", "LI", "NO"])),
}
"""Group -> its members, sorted."""

_OTHER_NAMES = {"UK": "GB", "EL": "GR", "ENGLAND": "GB", "USA": "US", "GREAT BRITAIN": "GB", "HOLLAND": "NL"}
_MAX_TEXT = 512


class JurisdictionUnknown(ValueError):
    """A text is no country code and no group; the message names the closest."""


def common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    """The countries that both allow, of which an empty one means anywhere; None when there is none."""
    if not one or not other:
        return one or other
    return tuple(sorted(set(one) & set(other))) or None


def parse_jurisdiction(text: str) -> tuple[str, ...]:
    """Read `DE`, `eu` or `DE,FR,EEA` as sorted country codes without doubles; raises JurisdictionUnknown."""
    if len(text) > _MAX_TEXT:
        raise JurisdictionUnknown(f"a jurisdiction of {len(text)} characters is too long; write codes such as DE,FR")
    codes: set[str] = set()
    for part in text.split(","):
        name = part.strip().upper()
        if name in GROUPS:
            codes.update(GROUPS[name])
        elif name in COUNTRIES:
            codes.add(name)
        else:
            raise JurisdictionUnknown(_explain(part.strip()))
    if len(codes) > MAX_JURISDICTIONS:
        raise JurisdictionUnknown(
            f"{len(codes)} countries are too many; name at most {MAX_JURISDICTIONS}, or none for anywhere"
        )
    return tuple(sorted(codes))


def parse_country(text: str) -> str:
    """Read exactly one country code, the place where a node is; raises JurisdictionUnknown."""
    code = text.strip().upper()
    if code in GROUPS:
        raise JurisdictionUnknown(
            f"{code} is a group of countries; a node is in one of them: {', '.join(GROUPS[code])}"
        )
    if code not in COUNTRIES:
        raise JurisdictionUnknown(_explain(text.strip()))
    return code


def _explain(text: str) -> str:
    known = "a two-letter country code of ISO 3166-1, such as CA or DE, or a group: " + ", ".join(GROUPS)
    if not text:
        return f"the jurisdiction is empty; write {known}"
    suggestion = _closest(text)
    hint = f"did you mean {suggestion} ({COUNTRIES[suggestion]})?" if suggestion else f"it must be {known}"
    return f"{text!r:.80} is no jurisdiction: {hint}"


def _closest(text: str) -> str | None:
    upper = text.upper()
    if upper in _OTHER_NAMES:
        return _OTHER_NAMES[upper]
    by_name = {name.upper(): code for code, name in COUNTRIES.items()}
    matches = get_close_matches(upper, by_name, n=1, cutoff=0.75)
    return by_name[matches[0]] if matches else None
