-- The three tables by name, in DuckDB's own command line, whose delta extension is downloaded at first use. From Python take
-- the lines of infra/docs/analysts.md instead, which need no download. Put the address of your results in place of this one.
-- For s3:// run first: CREATE SECRET (TYPE s3, PROVIDER credential_chain);
CREATE OR REPLACE VIEW scores_table AS SELECT * FROM delta_scan('s3://inspection/results/scores');
CREATE OR REPLACE VIEW verdicts_table AS SELECT * FROM delta_scan('s3://inspection/results/verdicts');
CREATE OR REPLACE VIEW maps_table AS SELECT * FROM delta_scan('s3://inspection/results/maps');
