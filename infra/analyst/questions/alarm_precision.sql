-- How many alarms are right? Of those with a verdict of good or defect on the same bytes, the share of defects, with its 95 %
-- interval (Wilson). It holds for all alarms only if the judged ones are a fair sample of them.
SELECT
    category,
    alarms,
    judged,
    defects,
    CASE WHEN judged > 0 THEN 1.0 * defects / judged END AS alarm_precision,
    CASE
        WHEN judged > 0
            THEN (
                1.0 * defects / judged + 1.9208 / judged
                - 1.96 * sqrt((1.0 * defects / judged) * (1 - 1.0 * defects / judged) / judged
                    + 0.9604 / (1.0 * judged * judged))
            ) / (1 + 3.8416 / judged)
    END AS precision_low,
    CASE
        WHEN judged > 0
            THEN (
                1.0 * defects / judged + 1.9208 / judged
                + 1.96 * sqrt((1.0 * defects / judged) * (1 - 1.0 * defects / judged) / judged
                    + 0.9604 / (1.0 * judged * judged))
            ) / (1 + 3.8416 / judged)
    END AS precision_high
FROM (
    SELECT
        latest.category,
        count(*) AS alarms,
        sum(CASE WHEN judgement.verdict IN ('good', 'defect') THEN 1 ELSE 0 END) AS judged,
        sum(CASE WHEN judgement.verdict = 'defect' THEN 1 ELSE 0 END) AS defects
    FROM latest
    LEFT JOIN latest_verdicts AS judgement
        ON latest.image_uri = judgement.image_uri AND latest.box IS NOT DISTINCT FROM judgement.box
    WHERE latest.status = 'scored' AND latest.is_anomaly
    GROUP BY latest.category
) AS counted
ORDER BY category;
