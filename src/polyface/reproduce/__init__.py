"""`polyface reproduce` and `compare-weightings`: rows of a table, trained over seeds, measured and compared."""

from polyface.reproduce.jobs import Job, finished, folder, hours, jobs, run_job, run_jobs, stored
from polyface.reproduce.pages import evaluation_report, table_report
from polyface.reproduce.runs import Runs
from polyface.reproduce.tables import collect, printed, rows_of, sources

__all__ = ["Job", "Runs", "collect", "evaluation_report", "finished", "folder", "hours", "jobs"]
__all__ += ["printed", "rows_of", "run_job", "run_jobs", "sources", "stored", "table_report"]
