Feature: Clients that were written for Faktory work here
  They change the address that they connect to, and nothing else.

  Background:
    Given a running server that speaks the protocol of Faktory
    And a Faktory client that works as "w-1"

  Scenario: A job goes through
    When the Faktory client pushes the job "jid-00001" of type "resize" to "images"
    And the Faktory client fetches from "images"
    Then the Faktory client has the job "jid-00001" of type "resize"
    When the Faktory client acknowledges it
    Then the job "jid-00001" in "images" is completed

  Scenario: A job that was pushed by other means
    When I push the job "j1" to "images" with the body {"file":"17.jpg"}
    And the Faktory client fetches from "images"
    Then the Faktory client has the job "j1" of type "images"
    And its argument is {"file":"17.jpg"}

  Scenario: The server is killed while a worker has the job
    When the Faktory client pushes the job "jid-00001" of type "resize" to "images"
    And the Faktory client fetches from "images"
    And the server is killed and speaks to Faktory clients again
    And the Faktory client connects again as "w-1"
    And the Faktory client acknowledges it
    Then the job "jid-00001" in "images" is completed
    And its history is push, fetch, complete

  Scenario: A failure is tried again, and the last one is kept
    When the Faktory client pushes the job "jid-00001" of type "resize" to "images" without retries
    And the Faktory client fetches from "images"
    And the Faktory client fails it
    Then the job "jid-00001" in "images" is dead
