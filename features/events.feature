Feature: Whoever wants to know hears what happens
  Every change of a job or a queue is an event with a place in the log. Who was away comes back to the place it had reached; what
  can no longer be told is said to be gone, never left out in silence.

  Background:
    Given a running server

  Scenario: The life of a job
    When I listen to the events of ""
    And I push the job "a" to "mail" with the body 1
    And a worker fetches from "mail"
    And the worker reports that it is done
    Then I hear "added a, active a, drained mail, completed a, empty mail"

  Scenario: Queues tell of themselves
    Given the job "a" in "mail" with the options {"delay_ms":3600000}
    When I listen to the events of ""
    And I pause "mail"
    And I pause "mail"
    And I resume "mail"
    And I remove the job "a" in "mail"
    Then I hear "paused mail, resumed mail, removed a, empty mail"

  Scenario: Only what is wanted
    When I listen to the events of "queue=mail.*&kind=added,dead"
    And I push the job "a" to "mail.eu" with the body 1
    And I push the job "b" to "films" with the body 1
    And a worker fetches from "mail.eu"
    And the worker fails it for good with the error "no"
    Then I hear "added a, dead a"

  Scenario: With what each change brought along
    When I listen to the events of "values=true&kind=progress,completed"
    And I push the job "a" to "mail" with the body 1
    And a worker fetches from "mail"
    And the worker says that it is at 50
    And the worker reports that it is done with the result {"sent":true}
    Then I hear "progress a, completed a"
    And what I heard said the "progress" 50 and the "result" {"sent":true}

  Scenario: Coming back to where one was
    When I listen to the events of ""
    And I push the job "a" to "mail" with the body 1
    And I push the job "b" to "mail" with the body 1
    Then I hear "added a, added b"
    When I come back behind the first event
    And I push the job "c" to "mail" with the body 1
    Then I hear "added b, added c"

  Scenario: After a restart the past is said to be gone
    When I listen to the events of ""
    And I push the job "a" to "mail" with the body 1
    Then I hear "added a"
    When the server is killed and started again
    And I come back behind the first event
    And I push the job "b" to "mail" with the body 1
    Then I hear that events are gone, and then "added b"

  Scenario: The command line
    When I listen to the events of ""
    And I push the job "a" to "mail" with the body 1
    And I push the job "b" to "mail" with the body 1
    Then I hear "added a, added b"
    When I run "millpond events --queue 'ma*' --from 0 --count 2"
    Then the command succeeds
    And it prints "mail/a  added"
    And it prints "mail/b  added"

  Scenario: A kind that does not exist
    When I ask for the events of "kind=finished"
    Then the call is refused with status 422 and the code "invalid"
    And the refusal says "completed"
