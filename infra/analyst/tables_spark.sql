-- The three tables by name, in Spark SQL with Delta Lake. Put the address of your results in place of this one.
CREATE TABLE IF NOT EXISTS scores_table USING DELTA LOCATION 's3a://inspection/results/scores';
CREATE TABLE IF NOT EXISTS verdicts_table USING DELTA LOCATION 's3a://inspection/results/verdicts';
CREATE TABLE IF NOT EXISTS maps_table USING DELTA LOCATION 's3a://inspection/results/maps';
