-- The three tables by name, in Amazon Athena, engine version 3. It reads Delta Lake and takes the columns from the table's log.
-- Put the address of your results in place of this one, and run one statement at a time.
CREATE EXTERNAL TABLE scores_table LOCATION 's3://inspection/results/scores/' TBLPROPERTIES ('table_type' = 'DELTA');
CREATE EXTERNAL TABLE verdicts_table LOCATION 's3://inspection/results/verdicts/' TBLPROPERTIES ('table_type' = 'DELTA');
CREATE EXTERNAL TABLE maps_table LOCATION 's3://inspection/results/maps/' TBLPROPERTIES ('table_type' = 'DELTA');
