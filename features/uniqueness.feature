Feature: One job per key
  Pushes that mean the same work share a unique key. A rule says what a push meets while another job has it.

  Background:
    Given a running server

  Scenario: A key has one live job
    Given the job "a" in "mail" with the options {"unique":{"key":"k"}}
    When I push the job "b" to "mail" with the options {"unique":{"key":"k"}}
    Then the push says that the job was there already
    And there is no job "b" in "mail"
    When I push the job "b" to "mail" with the options {"unique":{"key":"k","on_conflict":"reject"}}
    Then the call is refused with status 409 and the code "unique_conflict"

  Scenario: A debounced job takes the newest body and waits anew, but runs at last
    When I push to "index" the text {"id":"page-7","body":1,"delay_ms":3600000,"unique":{"key":"p","on_conflict":"debounce","max_wait_ms":1}}
    And I push to "index" the text {"body":2,"delay_ms":3600000,"unique":{"key":"p","on_conflict":"debounce"}}
    Then the push says that the job was there already
    And a worker that waits on "index" gets the job "page-7" as attempt 1
    And its body is 2

  Scenario: While a job runs, the last push stands by
    Given the job "a" in "sync" with the options {"unique":{"key":"account"}}
    When a worker fetches from "sync"
    And I push to "sync" the text {"id":"b","body":1,"unique":{"key":"account","on_conflict":"keep_last_if_active"}}
    And I push to "sync" the text {"id":"c","body":2,"unique":{"key":"account","on_conflict":"keep_last_if_active"}}
    Then the push says that the job was there already
    And there is no job "c" in "sync"
    And a worker that fetches from "sync" gets nothing
    When the first worker reports that it is done
    Then a worker that waits on "sync" gets the job "b" as attempt 1
    And its body is 2

  Scenario: A throttled key stays taken when its job has ended
    When I push the job "a" to "digest" with the options {"unique":{"key":"u","ttl_ms":3600000,"on_conflict":"throttle"}}
    And a worker fetches from "digest"
    And the worker reports that it is done
    And I push the job "b" to "digest" with the options {"unique":{"key":"u","ttl_ms":3600000,"on_conflict":"throttle"}}
    Then the push says that the job was there already
    And there is no job "b" in "digest"

  Scenario: The command line knows the rules
    When I run "millpond push index 1 --id page-7 --unique p --on-conflict debounce --delay 1h --max-wait 2h"
    And I run "millpond push index 2 --unique p --on-conflict debounce --delay 1h"
    Then the command succeeds
    And it prints "page-7"
    And it prints "was there already"

  Scenario: A fetch whose answer was lost is made again
    Given 2 jobs in "mail"
    When a worker fetches from "mail" under the idempotency key "fetch-1"
    And a worker fetches from "mail" under the idempotency key "fetch-1"
    Then it gets the same job again
    And "mail" has 1 waiting job
