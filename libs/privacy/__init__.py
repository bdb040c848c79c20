"""The privacy port, once for all services: describe, export, plan, erase and verify by the marks on columns."""

from libs.privacy.catalogue import unmarked_columns
from libs.privacy.mark import Mark, MarkError
from libs.privacy.servicer import SubjectDataServicer
from libs.privacy.subject_table import SubjectTable, Via, years_after_year_end

__all__ = [
    "Mark",
    "MarkError",
    "SubjectDataServicer",
    "SubjectTable",
    "Via",
    "unmarked_columns",
    "years_after_year_end",
]
