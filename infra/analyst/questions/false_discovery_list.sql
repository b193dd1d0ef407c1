-- Which photos can be reported so that at most 10 % of the list are false alarms, on average? By Benjamini and Hochberg over
-- all photos that are scored now: q_value is the smallest such share of a list that has the photo. An empty list says that the
-- calibrations are too small for so many photos; the run's summary says how many calibration photos it needs.
SELECT q_value, p_value, tail_rank, category, site, image_uri, box
FROM (
    SELECT *, min(raw_q) OVER (ORDER BY p_value DESC RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS q_value
    FROM (
        SELECT
            *,
            p_value * count(*) OVER ()
            / count(*) OVER (ORDER BY p_value RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS raw_q
        FROM latest
        WHERE status = 'scored'
    ) AS counted
) AS adjusted
WHERE q_value <= 0.1
ORDER BY coalesce(tail_rank, p_value), p_value, image_uri, box;
