"""The analytics database: every event in DuckDB, for SQL, trends, audits and leakage checks."""
