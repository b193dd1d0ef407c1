-- What should be looked at first? The 100 most anomalous photos that nobody has judged yet as they are now. of_site says how
-- many of the list are from the same site: a visit finds them together.
SELECT
    row_number() OVER (ORDER BY likeness, p_value, image_uri, box) AS place,
    site,
    count(*) OVER (PARTITION BY site) AS of_site,
    category,
    p_value,
    tail_rank,
    is_anomaly,
    captured_at,
    image_uri,
    box
FROM (
    SELECT
        latest.*,
        coalesce(latest.tail_rank, latest.p_value) AS likeness,
        row_number() OVER (
            ORDER BY coalesce(latest.tail_rank, latest.p_value), latest.p_value, latest.image_uri, latest.box
        ) AS overall
    FROM latest
    LEFT JOIN latest_verdicts AS judgement
        ON latest.image_uri = judgement.image_uri AND latest.box IS NOT DISTINCT FROM judgement.box
    WHERE latest.status = 'scored' AND judgement.verdict IS NULL
) AS ranked
WHERE overall <= 100
ORDER BY place;
