-- How many alarms would another false-alarm rate give? Nothing is scored again: the p-values are kept. is_supported is false
-- where some photos cannot be called at that rate, because their detector was calibrated on too few photos.
-- expected_if_all_were_flawless: p-values are multiples of smallest_p_value, so few flawless photos reach a rate between two of them.
-- It is attained_rate of the view scores, but for a rate that no run has asked for.
SELECT
    category,
    rate,
    count(*) AS photos,
    sum(CASE WHEN p_value <= rate THEN 1 ELSE 0 END) AS alarms,
    sum(coalesce(least(rate, floor(rate / smallest_p_value + 1e-6) * smallest_p_value), rate)) AS expected_if_all_were_flawless,
    min(CASE WHEN smallest_p_value <= rate THEN 1 ELSE 0 END) = 1 AS is_supported
FROM latest
CROSS JOIN (
    SELECT 0.001 AS rate
    UNION ALL SELECT 0.01
    UNION ALL SELECT 0.05
    UNION ALL SELECT 0.1
) AS budgets
WHERE status = 'scored'
GROUP BY category, rate
ORDER BY category, rate;
