"""Decides which names of fields and columns are about people, and which values are dates, ages and UIDs.

Names are compared without case, accents, spaces and punctuation, so `PatientName`, `patient_name` and `Patient's Name`
are the same. An element of DICOM that is written as its tag is judged by its name. Source of the fields: DICOM PS3.15,
annex E, table E.1-1, without those that say nothing about a person.
Source of the columns: HIPAA's list of identifiers, 45 CFR 164.514(b)(2)(i), in the words that tables use.
"""

import re
import unicodedata
from functools import lru_cache
from pathlib import PurePosixPath

from tasks.values.preflight_rules import RuleName

LAST_SHIFTED_YEAR = 1925  # BIDS specification, "Units": shifted dates are in 1925 or before
OLDEST_SHOWN = 89  # years: HIPAA, 45 CFR 164.514(b)(2)(i)(C)

_PERSONAL = frozenset(
    ("patientname", "patientsname", "patientid", "patientsid", "patientnumber", "patientbirthdate",
     "patientsbirthdate", "patientbirthtime", "patientbirthname", "patientmotherbirthname", "patientaddress",
     "patienttelephonenumbers", "patienttelephone", "patientcomments", "patientinsuranceplancodesequence",
     "otherpatientid", "otherpatientids", "otherpatientidssequence", "otherpatientname", "otherpatientnames",
     "issuerofpatientid", "medicalrecordlocator", "medicalrecordnumber", "additionalpatienthistory", "accessionnumber",
     "studyid", "operatorname", "operatorsname", "operatoridentificationsequence", "personname", "personaddress",
     "persontelephonenumbers", "responsibleperson", "nameofphysiciansreadingstudy", "orderenteredby",
     "orderentererlocation", "dob", "birthdate", "dateofbirth", "birthday", "firstname", "lastname", "middlename",
     "maidenname", "surname", "familyname", "givenname", "forename", "fullname", "subjectname", "participantname",
     "email", "emailaddress", "phone", "phonenumber", "telephone", "telephonenumber", "mobilenumber", "cellphone",
     "faxnumber", "homeaddress", "streetaddress", "postaladdress", "zip", "zipcode", "postcode", "postalcode", "ssn",
     "socialsecuritynumber", "mrn", "hospitalid", "hospitalnumber", "nhsnumber", "insurancenumber", "healthplannumber",
     "passportnumber", "passport", "nationalid", "nationalidnumber", "ipaddress", "admissionid", "contactname",
     "emergencycontact", "mothersname", "mothername", "fathersname", "fathername",
     "birthyear", "yearofbirth", "yob", "birthmonth", "monthofbirth", "birthplace", "placeofbirth",
     # German
     "vorname", "nachname", "familienname", "geburtsname", "geburtsdatum", "geburtstag", "geburtsjahr", "geburtsort",
     "anschrift", "wohnort", "postleitzahl", "telefon", "telefonnummer", "handynummer", "emailadresse",
     "krankenkasse", "krankenversicherungsnummer", "versichertennummer", "versichertennr", "sozialversicherungsnummer",
     "gebdatum", "gebjahr", "patientenname", "patientenid", "patientennummer", "patientennr", "fallnummer", "fallnr",
     # French
     "prenom", "prenoms", "nomdefamille", "nomdenaissance", "datedenaissance", "datenaissance", "anneedenaissance",
     "lieudenaissance", "codepostal", "numerodetelephone", "numerodesecuritesociale", "courriel", "nompatient",
     "nomdupatient", "nompatiente", "prenompatient", "prenomdupatient", "numeropatient", "numerodupatient",
     # Spanish
     "apellido", "apellidos", "primerapellido", "segundoapellido", "nombreyapellidos", "nombrecompleto",
     "fechadenacimiento", "fechanacimiento", "anodenacimiento", "lugardenacimiento", "codigopostal", "telefono",
     "correoelectronico", "numerodeseguridadsocial", "dni", "curp", "apellido1", "apellido2", "fechanac",
     "anonacimiento", "nombrepaciente", "nombredelpaciente", "idpaciente", "numeropaciente", "telefonomovil")
)  # fmt: skip
#: Fields of sidecars, and columns of tables of people, that mean other things in other tables (an operator, a sign).
_PERSONAL_UNLESS_OTHER = frozenset(("operator", "operators"))
#: Where a person lives or was: a place on earth, in full or short after what says that it is one.
_COORDINATE = re.compile(
    r"(?:^|_|gps|geo|home|birth)(?:latitude|longitude)s?(?:$|_)"
    r"|(?:home|geo|gps|residence|address|birth|birthplace)_?(?:lat|lon|lng|long|coords?|coordinates?|locations?)$"
)
#: Columns that are personal in a table of people and mean other things elsewhere (a stimulus has a name too).
_PERSONAL_OF_PEOPLE = frozenset(
    ("name", "names", "initials", "address", "street", "mail", "phone", "mobile", "fax", "city", "town", "village",
     "lat", "lon", "lng", "gps", "adresse", "strasse", "stadt", "ort", "plz", "nom", "ville", "rue",
     "nombre", "direccion", "calle", "ciudad", "correo", "tel", "handy", "movil")
)  # fmt: skip
#: Columns of people's names, by which names in paths are known.
NAMES = frozenset(
    ("name", "names", "firstname", "lastname", "middlename", "maidenname", "surname", "familyname", "givenname",
     "forename", "fullname", "subjectname", "participantname", "patientname", "vorname", "nachname", "familienname",
     "nom", "prenom", "nomdefamille", "nombre", "nombrecompleto", "apellido", "apellidos", "nombreyapellidos")
)  # fmt: skip
#: The suffixes of tables that are not about people (BIDS specification, "Schema"; those of derivatives).
_NOT_OF_PEOPLE = frozenset(
    ("events", "channels", "electrodes", "optodes", "dseg", "probseg", "mask", "aslcontext", "blood", "physio", "stim",
     "physioevents", "beh", "timeseries", "regressors", "mixing", "motion", "relmat", "connectivity", "model", "spikes",
     "morph", "stats")  # of parts of the brain, as FreeSurfer's programs write them
)  # fmt: skip
#: DICOM's group of the patient (PS3.6, "Registry of DICOM Data Elements"), as DICOM in JSON names its elements. Age,
#: sex, size and weight are no names.
_PATIENT_ELEMENT = re.compile(r"0010(?!0040|1010|1020|1030)[0-9a-f]{4}")
#: Elements of other groups by their names (PS3.6), those that are judged by name here. In DICOM's own JSON (PS3.18,
#: annex F) the tag is the name of a field.
_ELEMENTS = {
    "00080012": "InstanceCreationDate", "00080018": "SOPInstanceUID", "00080020": "StudyDate",
    "00080021": "SeriesDate", "00080022": "AcquisitionDate", "00080023": "ContentDate",
    "0008002a": "AcquisitionDateTime", "00080050": "AccessionNumber", "00080080": "InstitutionName",
    "00080081": "InstitutionAddress", "00080090": "ReferringPhysicianName", "00080092": "ReferringPhysicianAddress",
    "00080094": "ReferringPhysicianTelephoneNumbers", "00081010": "StationName", "00081030": "StudyDescription",
    "0008103e": "SeriesDescription", "00081040": "InstitutionalDepartmentName", "00081048": "PhysiciansOfRecord",
    "00081050": "PerformingPhysicianName", "00081060": "NameOfPhysiciansReadingStudy", "00081070": "OperatorsName",
    "00081072": "OperatorIdentificationSequence", "00101010": "PatientAge", "00181000": "DeviceSerialNumber",
    "00181008": "GantryID", "00181030": "ProtocolName", "0018700a": "DetectorID", "0020000d": "StudyInstanceUID",
    "0020000e": "SeriesInstanceUID", "00200010": "StudyID", "00200052": "FrameOfReferenceUID",
    "00204000": "ImageComments", "00321032": "RequestingPhysician", "00321060": "RequestedProcedureDescription",
    "00324000": "StudyComments", "00380010": "AdmissionID", "00400006": "ScheduledPerformingPhysicianName",
    "00400244": "PerformedProcedureStepStartDate", "00400254": "PerformedProcedureStepDescription",
    "00402008": "OrderEnteredBy", "00402009": "OrderEntererLocation", "0040a123": "PersonName",
    "00401102": "PersonAddress", "00401103": "PersonTelephoneNumbers",
}  # fmt: skip
#: The last word of a name of UIDs, and how names end that are written without capitals.
_UID = re.compile(r"(?:^|_)uids?$|(?:instance|class|series|study|device|reference|creator|event)uids?$")
#: A number that a scanner or a study counts by: it is in no register of people.
_COUNTED = re.compile(r"\d{1,2}")
_FREE_TEXT = frozenset(
    ("procedurestepdescription", "performedprocedurestepdescription", "requestedproceduredescription", "protocolname",
     "imagecomments", "seriesdescription", "studydescription", "studycomments", "seriescomments", "acquisitioncomments")
)  # fmt: skip
_DEVICE = frozenset(("deviceserialnumber", "scannerserialnumber", "stationname", "gantryid", "detectorid"))
#: UIDs of DICOM itself. They say which kind of object it is, and are the same for everybody.
_COMMON_UID = re.compile(r"(?:class|transfersyntax|codingscheme)uid$")

#: A UID as scanners and programs make them, whatever its field is called: many hold the machine's number and the time.
#: Not DICOM's own, nor those of lists of codes (HL7).
_IS_UID = re.compile(r"(?=.{24})(?:1\.2(?!\.840\.10008\.)|1\.3|2\.16(?!\.840\.1\.113883\.)|2\.25)(?:\.\d+)+")

#: What people write if they have removed something, or have nothing to say.
PLACEHOLDERS = frozenset(
    ("", "n/a", "na", "nan", "none", "null", "-", "unknown", "anonymous", "anonymized", "anonymised", "anon", "removed",
     "redacted", "deidentified", "de-identified", "xxx", "xxxx", "0")
)  # fmt: skip

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_ISO = re.compile(r"(\d{4})([-/])(?:0?[1-9]|1[0-2])\2(?:0?[1-9]|[12]\d|3[01])(?:[T ].*)?")
#: A day that nothing else looks like: its month is a word, and its year has four digits.
_SPELLED = re.compile(rf"\d{{1,2}}[ -](?:{_MONTHS})[a-z]*[ -](\d{{4}})(?:[ T,].*)?", re.IGNORECASE)
_OTHER_DATES = (
    re.compile(r"(\d{4})(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{6}(?:\.\d+)?)?"),  # DICOM's DA and DT
    re.compile(r"\d{1,2}([-/.])\d{1,2}\1(\d{4}|\d{2})(?:[T ,].*)?"),
    re.compile(r"(\d{4})[-/.]\d{1,2}(?:[-/.]\d{1,2})?(?:[T ].*)?"),
    re.compile(rf"\d{{1,2}}[ .-]*(?:{_MONTHS})[a-z]*[ .,-]*(\d{{4}}|\d{{2}})(?: .*)?", re.IGNORECASE),
    re.compile(rf"(?:{_MONTHS})[a-z]*[ .-]*\d{{1,2}}[ .,-]+(\d{{4}}|\d{{2}})(?: .*)?", re.IGNORECASE),
)
#: Names that end in `date`, and have nothing to do with days: a part of the brain, and who applies.
_DATE_NAME = re.compile(
    r"(?<!cau)(?<!candi)(?<!man)(?<!vali)dates?(?:time)?$|^date|(?:^|_)date(?:_|$)|acq_?time|timestamp"
    r"|datum$|(?:^|_)datum(?:_|$)|^fecha|(?:^|_)fecha(?:_|$)"  # German and Spanish; French has `date`
)
_AGE_NAME = re.compile(
    r"(?:^|[^a-z])(?:ages?|alter|edad)(?:$|[^a-z])|^age(?:in)?(?:y|years?|yrs?|months?|weeks?|days?)$|^patientage$"
)
_AGE = re.compile(r"\s*([<>≥≤]=?)?\s*(\d+(?:[.,]\d+)?)\s*(\+?)\s*([a-z]*)", re.IGNORECASE)
#: Years of one unit. The single letters are those of DICOM's ages (`046Y`).
_UNITS = {"m": 1 / 12, "mo": 1 / 12, "month": 1 / 12, "w": 7 / 365.25, "wk": 7 / 365.25, "week": 7 / 365.25,
          "d": 1 / 365.25, "day": 1 / 365.25, "h": 1 / 8766, "hour": 1 / 8766}  # fmt: skip


@lru_cache(maxsize=4096)
def rule_of(name: str, of_people: bool | None = None) -> RuleName | None:
    """Return the rule that a field or a column breaks by its name if it holds anything, or None.

    Args:
        name: the name of the field or column.
        of_people: for a column, whether its table is about people; None for a field of JSON.
    """
    letters = plain(name := spelled_out(name))
    if letters in _PERSONAL or "physician" in letters or _PATIENT_ELEMENT.fullmatch(letters):
        return "personal-data"
    if of_people and letters in _PERSONAL_OF_PEOPLE:
        return "personal-data"
    if of_people is not False and (letters in _PERSONAL_UNLESS_OTHER or _COORDINATE.search(_words(name))):
        return "personal-data"
    if _UID.search(_words(name)) and not _is_common(name):
        return "unique-identifier"
    if letters.startswith("institution"):
        return "institution"
    if letters in _DEVICE:
        return "device"
    return "free-text" if letters in _FREE_TEXT else None


def _is_common(name: str) -> bool:
    return _COMMON_UID.search(plain(name)) is not None


@lru_cache(maxsize=4096)
def names_a_date(name: str) -> bool:
    """Return whether a field or a column holds dates, by its name."""
    return _DATE_NAME.search(_words(spelled_out(name))) is not None


@lru_cache(maxsize=4096)
def names_an_age(name: str) -> bool:
    """Return whether a field or a column holds ages, by its name."""
    return _AGE_NAME.search(_words(spelled_out(name))) is not None


def spelled_out(name: str) -> str:
    """Return the name of an element of DICOM for its tag (`StudyDate` for `00080020`), and any other name as it is."""
    return _ELEMENTS.get(plain(name), name) if any(map(str.isdigit, name)) else name


def _words(name: str) -> str:
    """Return `age_at_scan` for `ageAtScan` and `Age at scan`, without accents."""
    letters = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))
    return re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", letters)).lower()


def plain(name: str) -> str:
    """Return a text in small letters and digits alone: `fechadenacimiento` for `Fecha de nacimiento`."""
    letters = unicodedata.normalize("NFKD", name.lower().replace("\u00df", "ss"))
    return re.sub(r"[^a-z0-9]", "", letters)


def is_about_people(path: str) -> bool:
    """Return whether the rows of a table are about people, or may be, by its name."""
    stem = PurePosixPath(path).name.partition(".")[0]
    return stem.rpartition("_")[2] not in _NOT_OF_PEOPLE


def needs_no_columns(path: str) -> bool:
    """Return whether a table of numbers alone tells nothing about people, by its name: it is of one subject's body.

    Physiology and responses have a row a moment. A table of the whole dataset has a row a person, more often than not,
    and a subject's sessions and scans have the days of visits.
    """
    name = PurePosixPath(path).name
    of_visits = name.partition(".")[0].endswith(("_sessions", "_scans"))
    return not is_about_people(path) or (name.startswith("sub-") and not of_visits)


def says_nothing(name: str, value: object) -> bool:
    """Return whether a field or cell of this name says nothing about a person by its value."""
    return is_placeholder(value) or (
        plain(spelled_out(name)) == "studyid" and _COUNTED.fullmatch(str(value).strip()) is not None
    )


def is_placeholder(value: object) -> bool:
    """Return whether a value says nothing."""
    return value is None or str(value).strip().lower() in PLACEHOLDERS


def is_uid(name: str, value: object) -> bool:
    """Return whether a value is a UID that DICOM gives an examination or an image, in a field of this name."""
    return isinstance(value, str) and _IS_UID.fullmatch(value.strip()) is not None and not _is_common(name)


def is_recent_date(value: object, named: bool) -> bool:
    """Return whether a value is a date later than 1925.

    Args:
        value: the value.
        named: whether its field's name says that it is a date. Then every usual spelling of a date counts.
    """
    if not isinstance(value, str | int):
        return False
    text = str(value).strip()
    found = _ISO.fullmatch(text) or _SPELLED.fullmatch(text)
    if found:
        return int(found.group(1)) > LAST_SHIFTED_YEAR
    if not named:
        return False
    for pattern in _OTHER_DATES:
        found = pattern.fullmatch(text)
        if found:
            year = found.groups()[-1]
            return len(year) == 2 or int(year) > LAST_SHIFTED_YEAR
    return False


def years_of(unit: str) -> float:
    """Return the years of one unit of age (`months`, `weeks`, ...). Years, and units that are not known, count 1."""
    word = re.sub(r"[^a-z]", "", unit.lower())
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"), 1.0)


@lru_cache(maxsize=1024)
def years_in_name(name: str) -> float:
    """Return the years of one unit of a column whose name says its unit: `age_months`."""
    words = [word for word in _words(name).split("_") if len(word) > 1]
    return next((years_of(word) for word in words if years_of(word) != 1.0), 1.0)


def is_over_89(value: object, years: float = 1.0) -> bool:
    """Return whether an age, in units of so many years, is 90 years or more.

    `89+`, `>89` and `90+` are nobody's age.
    """
    found = _AGE.match(str(value)) if value is not None else None
    if found is None:
        return False
    sign, number, plus, unit = found.groups()
    age = float(number.replace(",", ".")) * (years_of(unit) if unit else years)
    return age > OLDEST_SHOWN + 1 if plus or sign else age >= OLDEST_SHOWN + 1
